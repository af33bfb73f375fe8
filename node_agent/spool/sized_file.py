"""An open file with the size that it had when it was opened.

The other side of the spool may write to a file while it is read here: what it grows by is not read,
so a limit that was kept at the opening is kept to the end.
"""

import io
import os
from typing import Any


class SizedFile(io.FileIO):
    """Owns `descriptor`, of a regular file of `size` bytes. Ends there, whatever follows."""

    def __init__(self, descriptor: int, size: int) -> None:
        super().__init__(descriptor, "rb")
        self._size = size

    @property
    def has_grown(self) -> bool:
        """Whether there is more by now."""
        return os.fstat(self.fileno()).st_size > self._size

    def read(self, size: int | None = -1) -> bytes:
        left = self._left()
        return super().read(left if size is None or size < 0 else min(size, left)) or b""

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        return super().readinto(view[: self._left()]) or 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            offset, whence = self._size + offset, io.SEEK_SET
        return super().seek(offset, whence)

    def _left(self) -> int:
        return max(self._size - self.tell(), 0)
