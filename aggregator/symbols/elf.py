"""Program headers of an ELF file: which file offset is loaded at which address.

Layout: System V ABI, chapters "ELF Header" and "Program Header". Only 64-bit little-endian files
are read, because those are what supported hosts (x86-64) run. Pure; safe on hostile bytes.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from aggregator.symbols.errors import RefusedExtractError

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_PT_LOAD = 1
_MOST_PROGRAM_HEADERS = 4096


@dataclass(frozen=True)
class Segment:
    """One PT_LOAD segment: `size` bytes of the file from `offset` are loaded at `address`."""

    offset: int
    address: int
    size: int


def load_segments(data: bytes) -> list[Segment]:
    """The PT_LOAD segments of the ELF file in `data`, in the file's order.

    Raises RefusedExtractError when `data` is no 64-bit little-endian ELF file with a segment.
    """
    if len(data) < _HEADER.size or data[:4] != b"\x7fELF":
        raise RefusedExtractError("not an ELF file")
    if data[4] != 2 or data[5] != 1:
        raise RefusedExtractError("not a 64-bit little-endian ELF file")
    fields = _HEADER.unpack_from(data)
    table, entry_size, count = fields[5], fields[9], fields[10]
    if entry_size != _PROGRAM_HEADER.size or not 1 <= count <= _MOST_PROGRAM_HEADERS:
        raise RefusedExtractError(f"{count} program headers of {entry_size} bytes")
    if table + count * entry_size > len(data):
        raise RefusedExtractError("program headers reach beyond the end of the file")
    segments = []
    for index in range(count):
        kind, _, offset, address, _, size, *_ = _PROGRAM_HEADER.unpack_from(
            data, table + index * entry_size
        )
        if kind == _PT_LOAD:
            segments.append(Segment(offset, address, size))
    if not segments:
        raise RefusedExtractError("no segment to load")
    return segments


def relative_address(segments: Sequence[Segment], file_offset: int) -> int | None:
    """Address of a file offset, relative to the first segment's; None outside every segment.

    Relative to the first segment, because that is where symcaches count from.
    """
    for segment in segments:
        if segment.offset <= file_offset < segment.offset + segment.size:
            address = segment.address + (file_offset - segment.offset) - segments[0].address
            return address if 0 <= address < 1 << 63 else None
    return None
