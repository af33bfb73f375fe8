"""The vdso: code that the kernel maps into every process, with a file nowhere (man 7 vdso).

It is one image for all 64-bit processes of a running kernel, so ours tells the rows of all. A
process restored from a checkpoint brings that of another kernel: such a one is compared.
"""

import ctypes
import os
from pathlib import Path

from node_agent.processes.mappings import Mapping, parse_maps
from node_agent.symbols.build_ids import read_build_id

NAME = b"[vdso]"
_MAX_BYTES = 64 << 10


class Vdso:
    """Our own image, or none where the kernel gives none (`image` is empty)."""

    def __init__(self) -> None:
        self.image = _read_own()
        self.build_id = read_build_id(self._read, len(self.image)) if self.image else b""

    def is_same(self, tgid: int, mapping: Mapping) -> bool:
        """Whether process `tgid` has the same image at `mapping`."""
        if not self.image or mapping.end - mapping.start != len(self.image):
            return False
        try:
            memory = os.open(f"/proc/{tgid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return os.pread(memory, len(self.image), mapping.start) == self.image
        except (OSError, OverflowError):
            return False
        finally:
            os.close(memory)

    def open(self) -> int:
        """The image as a file; the descriptor is the caller's. Raises OSError."""
        descriptor = os.memfd_create("vdso", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, self.image)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _read(self, offset: int, size: int) -> bytes:
        return self.image[offset : offset + size]


def _read_own() -> bytes:
    for mapping in parse_maps(Path("/proc/self/maps").read_bytes()).entries:
        size = mapping.end - mapping.start
        if mapping.path == NAME and size <= _MAX_BYTES:
            return ctypes.string_at(mapping.start, size)
    return b""
