"""Read the lines of another process's file as it grows, within an allowance of bytes."""

import os
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from node_agent.symbols.perf_map_table import MAX_LINE_BYTES

MAX_FILE_BYTES = 64 << 20
PIECE_BYTES = 64 << 10
_TAIL_BYTES = 64


class Allowance:
    """How many bytes may be read now: `burst` at once, refilled by `per_s` a second."""

    def __init__(self, burst: int, per_s: int) -> None:
        self._burst, self._per_s = burst, per_s
        self._left = float(burst)
        self._at = time.monotonic()

    def take(self, wanted: int) -> int:
        """As many of `wanted` bytes as there are."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s)
        self._at = now
        taken = min(wanted, int(self._left))
        self._left -= taken
        return taken


class Lines(NamedTuple):
    """Whole lines that begin at byte `position` of the file."""

    text: bytes
    position: int


class PerfMapReader:
    """Owns `descriptor`. `count` is called with a reason for what is left out.

    Every method raises OSError where the file cannot be read.
    """

    def __init__(self, descriptor: int, count: Callable[[str], None]) -> None:
        self._descriptor = descriptor
        self._count = count
        self._is_full = False
        self._position = 0
        self._tail = b""  # the end of what was read
        self._size = -1
        self._mtime_ns = 0
        self._is_skipping = False  # the rest of a line that is too long

    def close(self) -> None:
        """Close the file; nothing else may be called then."""
        os.close(self._descriptor)

    def is_unlinked(self) -> bool:
        """Whether the file has lost its name: another may have it by now."""
        return os.fstat(self._descriptor).st_nlink == 0

    def rewind_rewritten(self) -> bool:
        """Begin again if the file is not only a longer form of what was read; whether it is so."""
        status = os.fstat(self._descriptor)
        size = status.st_size
        is_rewritten = (
            size < self._position
            or (size == self._size and status.st_mtime_ns != self._mtime_ns)
            or self._read(self._position - len(self._tail), len(self._tail)) != self._tail
        )
        if is_rewritten:
            self._position, self._tail, self._is_skipping = 0, b"", False
        self._mtime_ns = status.st_mtime_ns
        self._size = size
        return is_rewritten

    def has_more(self) -> bool:
        """Whether there is something to read, as of the last `rewind_rewritten`."""
        return self._position < min(self._size, MAX_FILE_BYTES)

    def lines(self, allowance: Allowance) -> Iterator[Lines]:
        """What was appended, in pieces; ends where the allowance or the file does."""
        while self.has_more():
            wanted = min(PIECE_BYTES, self._size - self._position)
            # Less than a line could lead nowhere, again and again.
            allowed = allowance.take(wanted)
            if allowed < min(wanted, MAX_LINE_BYTES + 1):
                return
            data = self._read(self._position, allowed)
            if not data:
                return
            end = data.rfind(b"\n") + 1
            if end:
                piece = Lines(data[:end], self._position)
                if self._is_skipping:
                    begin = data.index(b"\n") + 1
                    piece = Lines(data[begin:end], self._position + begin)
                self._is_skipping = False
                self._advance(data[:end])
                yield piece
            elif len(data) > MAX_LINE_BYTES:
                if not self._is_skipping:
                    self._count("perf_map_long_line")
                self._is_skipping = True
                self._advance(data)
            else:
                return  # the end of the line is still to be written
        if self._size > MAX_FILE_BYTES and not self._is_full:
            self._is_full = True
            self._count("perf_map_full")

    def line_at(self, position: int, max_bytes: int) -> bytes:
        """The line that begins there, without its end, cut at `max_bytes`."""
        return self._read(position, max_bytes).partition(b"\n")[0]

    def _read(self, position: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, position) if size else b""

    def _advance(self, data: bytes) -> None:
        self._position += len(data)
        self._tail = data[-_TAIL_BYTES:]
