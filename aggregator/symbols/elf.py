"""Headers of an ELF file: what is loaded where, its build id, its sections.

Layout: System V ABI, chapters "ELF Header", "Sections" and "Program Header". Only 64-bit
little-endian files are read, because those are what supported hosts (x86-64) run. Pure; safe on
hostile bytes. `data` may be a memory map as well.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from mmap import mmap

from aggregator.symbols.errors import RefusedExtractError
from wire.build_ids import FILE_ENDS_BYTES, file_build_id, go_build_id

Data = bytes | mmap
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_NOTE = struct.Struct("<III")
_PT_LOAD, _PT_NOTE = 1, 4
_SHT_NULL, SHT_NOBITS, _SHT_NOTE = 0, 8, 7
_EXECUTABLE = 1
_NT_GNU_BUILD_ID, _NT_GO_BUILD_ID = 3, 4
_MOST_NOTE_BYTES = 1 << 20
_MOST_PROGRAM_HEADERS = 4096
_MOST_SECTIONS = 65_535
_MOST_NAME_BYTES = 4 << 20
_LONGEST_SECTION_NAME = 256


@dataclass(frozen=True)
class Segment:
    """One PT_LOAD segment: `size` bytes of the file from `offset` are loaded at `address`."""

    offset: int
    address: int
    size: int


@dataclass(frozen=True)
class Section:
    """A section: `size` bytes of the file from `offset` on, loaded at `address`."""

    name: str
    type: int
    address: int
    offset: int
    size: int


def load_segments(data: Data) -> list[Segment]:
    """The PT_LOAD segments of the ELF file in `data`, in the file's order, as in the file that
    runs: for a file of debug information only they are computed (see `_computed_offsets`).

    Raises RefusedExtractError when `data` is no 64-bit little-endian ELF file with a segment.
    """
    rows = _loaded(data)
    if not rows:
        raise RefusedExtractError("no segment to load")
    if _is_debug_only(rows):
        return _computed_offsets(rows)
    return [Segment(offset, address, size) for _, _, offset, address, _, size, _, _ in rows]


def entry_point(data: Data) -> int:
    """The address at which the program begins, 0 for none. Raises RefusedExtractError."""
    _check_header(data)
    return int(_HEADER.unpack_from(data)[4])


def build_id(data: Data) -> bytes:
    """What identifies the file, as agents find it: the GNU build id, else Go's, else a hash of the
    file's ends. Raises RefusedExtractError when it is no ELF file."""
    found = noted_build_id(data)
    if found is None:
        tail = max(0, len(data) - FILE_ENDS_BYTES)
        found = file_build_id(len(data), data[:FILE_ENDS_BYTES], data[tail:])
    return found


def noted_build_id(data: Data) -> bytes | None:
    """The build id (the GNU one, else Go's) in the notes; None without.

    Agents look into the segments of notes; files of debug information keep only the sections.
    Raises RefusedExtractError like `load_segments`.
    """
    go = None
    for notes in _note_contents(data):
        for owner, kind, content in _notes(notes):
            if owner == b"GNU\0" and kind == _NT_GNU_BUILD_ID:
                # All zeros is room that a linker reserved, and no id.
                if 1 <= len(content) <= 64 and any(content):
                    return content
            elif owner == b"Go\0\0" and kind == _NT_GO_BUILD_ID and content:
                go = go_build_id(content)
    return go


def sections(data: Data) -> list[Section]:
    """The sections that have a name. Raises RefusedExtractError when they contradict the file."""
    _check_header(data)
    fields = _HEADER.unpack_from(data)
    table, entry_size, count, names_index = fields[6], fields[11], fields[12], fields[13]
    if table == 0:
        return []
    if entry_size != _SECTION.size or table + _SECTION.size > len(data):
        raise RefusedExtractError("the section headers cannot be read")
    if count == 0 or names_index == 0xFFFF:  # more than 65,279: the numbers are in section 0
        first = _SECTION.unpack_from(data, table)
        count = count or first[5]
        names_index = first[6] if names_index == 0xFFFF else names_index
    if count > _MOST_SECTIONS or table + count * _SECTION.size > len(data):
        raise RefusedExtractError("the section headers reach beyond the end of the file")
    rows = [_SECTION.unpack_from(data, table + index * _SECTION.size) for index in range(count)]
    if names_index >= count or rows[names_index][5] > _MOST_NAME_BYTES:
        return []
    names = data[rows[names_index][4] : rows[names_index][4] + rows[names_index][5]]
    found = []
    for name_at, kind, _, address, offset, size, *_ in rows:
        if kind not in (_SHT_NULL, SHT_NOBITS) and offset + size > len(data):
            raise RefusedExtractError("a section reaches beyond the end of the file")
        name = names[name_at : name_at + _LONGEST_SECTION_NAME].partition(b"\0")[0]
        found.append(Section(name.decode("utf-8", "replace"), kind, address, offset, size))
    return found


def content_of(data: Data, section: Section) -> bytes:
    """The bytes of a section; none when the file does not hold them."""
    if section.type == SHT_NOBITS:
        return b""
    return data[section.offset : section.offset + section.size]


def relative_address(segments: Sequence[Segment], file_offset: int) -> int | None:
    """Address of a file offset, relative to the first segment's; None outside every segment.

    Relative to the first segment, because that is where symcaches count from.
    """
    for segment in segments:
        if segment.offset <= file_offset < segment.offset + segment.size:
            address = segment.address + (file_offset - segment.offset) - segments[0].address
            return address if 0 <= address < 1 << 63 else None
    return None


def _check_header(data: Data) -> None:
    if len(data) < _HEADER.size or data[:4] != b"\x7fELF":
        raise RefusedExtractError("not an ELF file")
    if data[4] != 2 or data[5] != 1:
        raise RefusedExtractError("not a 64-bit little-endian ELF file")


def _program_headers(data: Data) -> Iterator[tuple[int, ...]]:
    """Type, flags, offset, address, physical address, size, size in memory, alignment."""
    _check_header(data)
    fields = _HEADER.unpack_from(data)
    table, entry_size, count = fields[5], fields[9], fields[10]
    if entry_size != _PROGRAM_HEADER.size or not 1 <= count <= _MOST_PROGRAM_HEADERS:
        raise RefusedExtractError(f"{count} program headers of {entry_size} bytes")
    if table + count * entry_size > len(data):
        raise RefusedExtractError("program headers reach beyond the end of the file")
    for index in range(count):
        yield _PROGRAM_HEADER.unpack_from(data, table + index * entry_size)


def _loaded(data: Data) -> list[tuple[int, ...]]:
    return [row for row in _program_headers(data) if row[0] == _PT_LOAD]


def _is_debug_only(rows: list[tuple[int, ...]]) -> bool:
    """Whether content of the code's segments is missing, as --only-keep-debug leaves them."""
    return any(flags & _EXECUTABLE and size < memory for _, flags, _, _, _, size, memory, _ in rows)


def _computed_offsets(rows: list[tuple[int, ...]]) -> list[Segment]:
    """Where the segments lie in the program, from its file of debug information, which keeps their
    addresses but not their places in the file.

    Linkers put each segment at the next place in the file that is congruent to its address modulo
    its alignment, because that is what can be mapped. Nodes know the places, too, but a node could
    lie and so move the names of a file that somebody else uploaded.
    """
    segments = []
    end = 0
    for _, _, _, address, _, _, memory, align in rows:
        step = align if align > 1 else 1
        offset = end + (address - end) % step
        segments.append(Segment(offset, address, memory))
        end = offset + memory
    return segments


def _note_contents(data: Data) -> Iterator[bytes]:
    kept = False
    for kind, _, offset, _, _, size, _, _ in _program_headers(data):
        if kind == _PT_NOTE and size:
            kept = True
            yield data[offset : offset + min(size, _MOST_NOTE_BYTES)]
    if not kept and _is_debug_only(_loaded(data)):
        for section in sections(data):
            if section.type == _SHT_NOTE:
                yield content_of(data, section)[:_MOST_NOTE_BYTES]


def _notes(notes: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """Owner (with its padding), type and content; stops at the first that does not fit."""
    position = 0
    while position + _NOTE.size <= len(notes):
        owner_size, size, kind = _NOTE.unpack_from(notes, position)
        owner_at = position + _NOTE.size
        content_at = owner_at + (owner_size + 3 & ~3)
        position = content_at + (size + 3 & ~3)
        yield notes[owner_at:content_at], kind, notes[content_at : content_at + size]
