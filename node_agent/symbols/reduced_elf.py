"""Reduce an ELF file to what names its functions: headers, symbol tables, notes.

The result is an ELF file as `objcopy --only-keep-debug` leaves it, only smaller: every section
header stays, the sections without use here become NOBITS, and the program headers stay, so that
file offsets and addresses still translate into each other. Segments whose content would be read
but is no longer there (dynamic, interpreter) become PT_NULL.
"""

import re
from collections.abc import Iterator

from node_agent.symbols.elf import (
    HEADER,
    MAX_NOTE_BYTES,
    PT_NOTE,
    SECTION,
    SEGMENT,
    SHT_DYNSYM,
    SHT_NOBITS,
    SHT_NOTE,
    SHT_STRTAB,
    SHT_SYMTAB,
    ReadAt,
    Section,
    Segment,
    read_header,
    read_sections,
    read_segments,
)
from node_agent.symbols.errors import ElfError, SymbolError

_NO_TEXT = re.compile("[\udc80-\udcff]")
_PT_NULL, _PT_DYNAMIC, _PT_INTERP = 0, 2, 3
_SHT_NULL = 0
_SYMBOLS_BY_NAME = (".gopclntab", ".data.rel.ro.gopclntab", ".gnu_debugdata")
# Some hundred bytes that say where in Go's table the inlined functions are.
_GO_MODULE, _MAX_GO_MODULE_BYTES = ".go.module", 4_096


def reduce_elf(read: ReadAt, file_size: int, max_bytes: int) -> bytes:
    """The reduced form of an ELF file of `file_size` bytes.

    Raises ElfError when it is no readable ELF file, SymbolError when it holds no symbols or the
    result would have more than `max_bytes`.
    """
    header = read_header(read)
    segments = read_segments(read, header)
    sections = read_sections(read, header, file_size)
    names_index = header.names_index
    if names_index == 0xFFFF and sections:
        names_index = sections[0].link
    kept = _kept_sections(sections, names_index)
    size = HEADER.size + len(segments) * SEGMENT.size + len(sections) * SECTION.size
    size += sum(sections[index].size + 16 for index in kept)
    size += sum(s.filesz + 16 for s in segments if _is_kept_note(s))
    if size > max_bytes:
        raise SymbolError(f"too large: {size} bytes of symbols, at most {max_bytes} are sent")

    out = bytearray(HEADER.size + len(segments) * SEGMENT.size)
    for number, segment in enumerate(segments):
        moved = _moved_segment(segment, out, read)
        SEGMENT.pack_into(out, HEADER.size + number * SEGMENT.size, *moved)
    rows = []
    for index, section in enumerate(sections):
        kind, offset = section.type, section.offset
        if index in kept:
            is_names = section.type == SHT_STRTAB
            offset = _append(out, read, section.offset, section.size, is_names)
        elif kind != _SHT_NULL:
            kind = SHT_NOBITS
        rows.append(
            SECTION.pack(
                section.name_index, kind, section.flags, section.addr, offset, *section[6:]
            )
        )
    out += bytes(-len(out) % 8)
    table_offset = len(out)
    out += b"".join(rows)
    fields = list(HEADER.unpack(header.raw))
    fields[5] = HEADER.size if segments else 0
    fields[6] = table_offset
    HEADER.pack_into(out, 0, *fields)
    return bytes(out)


def _kept_sections(sections: list[Section], names_index: int) -> set[int]:
    symbols = set(_symbol_sections(sections))
    if not symbols:
        raise SymbolError("no symbols: the file is stripped of every symbol table")
    links = {sections[i].link for i in symbols if sections[i].type in (SHT_SYMTAB, SHT_DYNSYM)}
    strings = {i for i in links if i < len(sections) and sections[i].type == SHT_STRTAB}
    notes = {i for i, s in enumerate(sections) if s.type == SHT_NOTE and s.size <= MAX_NOTE_BYTES}
    names = {names_index} if names_index < len(sections) else set()
    go = {i for i, s in enumerate(sections) if _is_go_module(s)}
    return symbols | strings | notes | names | go


def _is_go_module(section: Section) -> bool:
    return (
        section.name == _GO_MODULE
        and section.type != SHT_NOBITS
        and section.size <= _MAX_GO_MODULE_BYTES
    )


def _symbol_sections(sections: list[Section]) -> Iterator[int]:
    for index, section in enumerate(sections):
        if section.type == SHT_NOBITS or section.size == 0:
            continue
        if section.type in (SHT_SYMTAB, SHT_DYNSYM) or section.name in _SYMBOLS_BY_NAME:
            yield index


def _is_kept_note(segment: Segment) -> bool:
    return segment.type == PT_NOTE and segment.filesz <= MAX_NOTE_BYTES


def _moved_segment(segment: Segment, out: bytearray, read: ReadAt) -> Segment:
    if _is_kept_note(segment):
        # The build id is looked for here first, so the notes must be where this says.
        return segment._replace(offset=_append(out, read, segment.offset, segment.filesz))
    if segment.type in (_PT_DYNAMIC, _PT_INTERP, PT_NOTE):
        return segment._replace(type=_PT_NULL)
    return segment


def _append(out: bytearray, read: ReadAt, offset: int, size: int, is_names: bool = False) -> int:
    """Append a part of the file, aligned to 8; returns where it begins."""
    out += bytes(-len(out) % 8)
    start = len(out)
    data = read(offset, size)
    if len(data) != size:
        raise ElfError("a section or a note reaches beyond the end of the file")
    out += _readable(data) if is_names else data
    return start


def _readable(names: bytes) -> bytes:
    """A string table with `?` for each byte that is no UTF-8: whoever reads it as text would refuse
    all names for the sake of one."""
    if names.isascii():
        return names
    return _NO_TEXT.sub("?", names.decode("utf-8", "surrogateescape")).encode()
