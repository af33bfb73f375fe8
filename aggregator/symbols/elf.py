"""Program headers of an ELF file: which file offset is loaded at which address, and its build id.

Layout: System V ABI, chapters "ELF Header" and "Program Header". Only 64-bit little-endian files
are read, because those are what supported hosts (x86-64) run. Pure; safe on hostile bytes.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aggregator.symbols.errors import RefusedExtractError

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_NOTE = struct.Struct("<III")
_PT_LOAD, _PT_NOTE = 1, 4
_NT_GNU_BUILD_ID = 3
_MOST_NOTE_BYTES = 1 << 20
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
    segments = [segment for kind, segment in _segments(data) if kind == _PT_LOAD]
    if not segments:
        raise RefusedExtractError("no segment to load")
    return segments


def gnu_build_id(data: bytes) -> bytes | None:
    """The GNU build id in the note segments, which are where agents look for it; None without.

    Raises RefusedExtractError like `load_segments`.
    """
    for kind, segment in _segments(data):
        if kind != _PT_NOTE:
            continue
        notes = data[segment.offset : segment.offset + min(segment.size, _MOST_NOTE_BYTES)]
        position = 0
        while position + _NOTE.size <= len(notes):
            owner_size, size, note_kind = _NOTE.unpack_from(notes, position)
            owner_at = position + _NOTE.size
            content_at = owner_at + (owner_size + 3 & ~3)
            position = content_at + (size + 3 & ~3)
            content = notes[content_at : content_at + size]
            if notes[owner_at:content_at] == b"GNU\0" and note_kind == _NT_GNU_BUILD_ID:
                # All zeros is room that a linker reserved, and no id.
                return content if any(content) else None
    return None


def _segments(data: bytes) -> Iterator[tuple[int, Segment]]:
    """Type and place of every program header."""
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
    for index in range(count):
        kind, _, offset, address, _, size, *_ = _PROGRAM_HEADER.unpack_from(
            data, table + index * entry_size
        )
        yield kind, Segment(offset, address, size)


def relative_address(segments: Sequence[Segment], file_offset: int) -> int | None:
    """Address of a file offset, relative to the first segment's; None outside every segment.

    Relative to the first segment, because that is where symcaches count from.
    """
    for segment in segments:
        if segment.offset <= file_offset < segment.offset + segment.size:
            address = segment.address + (file_offset - segment.offset) - segments[0].address
            return address if 0 <= address < 1 << 63 else None
    return None
