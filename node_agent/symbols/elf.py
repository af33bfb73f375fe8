"""Headers of 64-bit little-endian ELF files (format: man 5 elf), read from untrusted input.

Nothing here trusts a size or an offset of the file: each is checked against the file's size and a
limit before anything is read or allocated.
"""

import os
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from node_agent.symbols.errors import ElfError, OtherFormatError

# read(offset, size) returns up to `size` bytes; fewer where the file ends, none beyond it, whatever
# 64-bit numbers a header gives.
ReadAt = Callable[[int, int], bytes]

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SEGMENT = struct.Struct("<IIQQQQQQ")
SECTION = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")

PT_LOAD, PT_NOTE = 1, 4
SHT_SYMTAB, SHT_STRTAB, SHT_NOTE, SHT_NOBITS, SHT_DYNSYM = 2, 3, 7, 8, 11
STT_FUNC, STT_GNU_IFUNC = 2, 10

MAX_SEGMENTS = 1_024
MAX_SECTIONS = 65_535
MAX_NAMES_BYTES = 4 << 20
MAX_NOTE_BYTES = 1 << 20
MAX_STRING_BYTES = 4_096  # longer names are cut: many symbols may share one of megabytes


class Segment(NamedTuple):
    """A program header."""

    type: int
    flags: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    align: int


class Section(NamedTuple):
    """A section header, with its name resolved."""

    name: str
    name_index: int
    type: int
    flags: int
    addr: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entsize: int


class Header(NamedTuple):
    """The parts of the ELF header that are used."""

    raw: bytes
    type: int
    machine: int
    entry: int
    segment_offset: int
    segment_count: int
    section_offset: int
    section_count: int
    names_index: int


class Note(NamedTuple):
    """An entry of a note section or segment."""

    owner: bytes
    type: int
    content: bytes


def file_reader(descriptor: int) -> tuple[ReadAt, int]:
    """What reads an open file at any offset, and the file's size as it is now: what it may grow by
    later is not read."""
    size = os.fstat(descriptor).st_size

    def read(offset: int, length: int) -> bytes:
        # os.pread allocates what it is asked for before it reads, and takes 63 bits of offset.
        inside = 0 <= offset < size and length > 0
        return os.pread(descriptor, min(length, size - offset), offset) if inside else b""

    return read, size


def read_header(read: ReadAt) -> Header:
    """The ELF header. Raises ElfError."""
    raw = read(0, HEADER.size)
    if len(raw) < HEADER.size or raw[:4] != b"\x7fELF":
        raise OtherFormatError("not an ELF file")
    if raw[4] != 2 or raw[5] != 1:
        raise OtherFormatError("an ELF file, but not a 64-bit little-endian one")
    _, kind, machine, _, entry, phoff, shoff, *sizes = HEADER.unpack(raw)
    _, _, phentsize, phnum, shentsize, shnum, shstrndx = sizes
    if phnum and phentsize != SEGMENT.size:
        raise ElfError(f"program headers of {phentsize} bytes where {SEGMENT.size} are usual")
    if phnum > MAX_SEGMENTS:
        raise ElfError(f"{phnum} program headers; at most {MAX_SEGMENTS} are read")
    if (shnum or shoff) and shentsize != SECTION.size:
        raise ElfError(f"section headers of {shentsize} bytes where {SECTION.size} are usual")
    return Header(raw, kind, machine, entry, phoff, phnum, shoff, shnum, shstrndx)


def read_segments(read: ReadAt, header: Header) -> list[Segment]:
    """All program headers. Raises ElfError when they reach beyond the file."""
    size = header.segment_count * SEGMENT.size
    data = read(header.segment_offset, size) if size else b""
    if len(data) != size:
        raise ElfError("the program headers reach beyond the end of the file")
    return [
        Segment(kind, flags, offset, vaddr, paddr, filesz, memsz, align)
        for kind, flags, offset, vaddr, paddr, filesz, memsz, align in SEGMENT.iter_unpack(data)
    ]


def read_sections(read: ReadAt, header: Header, file_size: int) -> list[Section]:
    """All section headers; empty when the file has none. Raises ElfError.

    A section that has content must lie inside the file.
    """
    if header.section_offset == 0:
        return []
    count, names_index = header.section_count, header.names_index
    if count == 0 or names_index == 0xFFFF:  # more than 65,279: the numbers are in section 0
        first = read(header.section_offset, SECTION.size)
        if len(first) != SECTION.size:
            raise ElfError("the section headers reach beyond the end of the file")
        zero = SECTION.unpack(first)
        count = count or zero[5]
        names_index = zero[6] if names_index == 0xFFFF else names_index
    if count > MAX_SECTIONS:
        raise ElfError(f"{count} sections; at most {MAX_SECTIONS} are read")
    data = read(header.section_offset, count * SECTION.size)
    if len(data) != count * SECTION.size:
        raise ElfError("the section headers reach beyond the end of the file")
    rows = list(SECTION.iter_unpack(data))
    for row in rows:
        if row[1] not in (0, SHT_NOBITS) and row[4] + row[5] > file_size:
            raise ElfError("a section reaches beyond the end of the file")
    names = b""
    if names_index < count:
        if rows[names_index][5] > MAX_NAMES_BYTES:
            raise ElfError(f"section names of more than {MAX_NAMES_BYTES} bytes")
        names = read(rows[names_index][4], rows[names_index][5])
    return [Section(string_at(names, row[0]), *row) for row in rows]


def string_at(table: bytes, index: int) -> str:
    """The NUL-ended string at `index` of a string table, cut at MAX_STRING_BYTES; empty when it
    is out of range."""
    if index >= len(table):
        return ""
    limit = min(index + MAX_STRING_BYTES, len(table))
    end = table.find(b"\0", index, limit)
    return table[index : end if end >= 0 else limit].decode("utf-8", "replace")


def parse_notes(data: bytes) -> Iterator[Note]:
    """The notes in `data`; stops quietly at the first that does not fit."""
    position = 0
    while position + 12 <= len(data):
        owner_size, size, kind = struct.unpack_from("<III", data, position)
        owner_at = position + 12
        content_at = owner_at + (owner_size + 3 & ~3)
        position = content_at + (size + 3 & ~3)
        if content_at + size > len(data):
            return
        owner = data[owner_at : owner_at + owner_size].rstrip(b"\0")
        yield Note(owner, kind, data[content_at : content_at + size])
