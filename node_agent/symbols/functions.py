"""Functions of one ELF file by file offset, from its symbol tables. For the local symbolizer.

.symtab and .dynsym, and the minimal symbols that Fedora and others compress into .gnu_debugdata
(format: https://sourceware.org/gdb/current/onlinedocs/gdb.html/MiniDebugInfo.html); for Go its own
table, with lines and inlined functions; .symtab of the file's debug information, where it is given;
lines and inlined functions from .debug_line and .debug_info of either.
"""

import lzma
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress

from node_agent.symbols.debug_sections import read_contents
from node_agent.symbols.dwarf_entries import DebugSections
from node_agent.symbols.dwarf_inlines import Call, find_inlined
from node_agent.symbols.dwarf_lines import MAX_LINE_BYTES, Place, Sections, find_lines, read_paths
from node_agent.symbols.elf import (
    PT_LOAD,
    SHT_DYNSYM,
    SHT_NOBITS,
    SHT_SYMTAB,
    STT_FUNC,
    STT_GNU_IFUNC,
    SYMBOL,
    ReadAt,
    Section,
    Segment,
    read_header,
    read_sections,
    read_segments,
    string_at,
)
from node_agent.symbols.errors import ElfError
from wire.gopclntab import GoTable, GoTableError, check_text, open_table
from wire.pprof import Line

MAX_TABLE_BYTES = 256 << 20
MAX_DEBUGDATA_BYTES = 64 << 20
_MAX_MODULE_BYTES = 4_096
_LINE_SECTIONS = (".debug_line", ".debug_line_str", ".debug_str")
_ENTRY_SECTIONS = (
    *(".debug_info", ".debug_abbrev", ".debug_str", ".debug_line_str", ".debug_str_offsets"),
    *(".debug_addr", ".debug_ranges", ".debug_rnglists"),
)


class Functions:
    """Sorted functions of one file, and Go's table if it is a Go program's."""

    def __init__(
        self,
        rows: list[tuple[int, int, str]],
        segments: list[Segment],
        go: GoTable | None = None,
        lines: Sections | None = None,
        entries: DebugSections | None = None,
    ) -> None:
        """`rows` are (virtual address, size, name); size 0 means up to the next function."""
        self._go = go
        self._lines = lines
        self._entries = entries
        self._paths: dict[int, list[str]] = {}  # of the files of a unit, by where its lines begin
        rows.sort(key=lambda row: row[0])
        self._starts = [row[0] for row in rows]
        self._rows = rows
        self._segments = [s for s in segments if s.type == PT_LOAD]

    def lines_at(self, offsets: Sequence[int]) -> list[list[Line]]:
        """What runs at each of these file offsets (names mangled), the innermost function first;
        empty where no symbol covers it.
        """
        addresses = {offset: self._address(offset) for offset in offsets}
        known = [address for address in addresses.values() if address is not None]
        places = find_lines(self._lines, known) if self._lines is not None else {}
        inlined = find_inlined(self._entries, known) if self._entries is not None else {}
        found: list[list[Line]] = []
        for offset in offsets:
            address = addresses[offset]
            if address is None:
                found.append([])
                continue
            lines, calls = self._go_lines(address), inlined.get(address, [])
            if not lines and (name := self.name_at(offset)) is not None:
                lines = self._unfold(name, calls, places.get(address, ("", 0)))
            elif len(lines) == 1 and calls:  # before Go 1.26 its table has no inlined functions
                lines = self._unfold(lines[0].function, calls, (lines[0].file, lines[0].line))
            found.append(lines)
        return found

    def _unfold(self, function: str, calls: list[Call], place: Place) -> list[Line]:
        """What was inlined into `function` and stands at `place`, the innermost first."""
        lines = []
        for name, file, line, unit in reversed(calls):
            lines.append(Line(name or function, *place))
            if unit not in self._paths:
                self._paths[unit] = read_paths(self._lines, unit) if self._lines is not None else []
            paths = self._paths[unit]
            place = paths[file] if 0 <= file < len(paths) else "", line
        return [*lines, Line(function, *place)]

    def _go_lines(self, address: int) -> list[Line]:
        if self._go is None:
            return []
        try:
            return self._go.lookup(address)
        except GoTableError:
            return []  # damaged there; the symbol tables may still know

    def name_at(self, offset: int) -> str | None:
        """The function (mangled) that holds the byte at file offset `offset`."""
        address = self._address(offset)
        if address is None:
            return None
        end = bisect_right(self._starts, address)
        # Aliases and nested entries: the nearest that reaches this far.
        for index in range(end - 1, max(-1, end - 9), -1):
            start, size, name = self._rows[index]
            if address < start + size or (size == 0 and index == end - 1):
                return name
        return None

    def _address(self, offset: int) -> int | None:
        for segment in self._segments:
            if segment.offset <= offset < segment.offset + segment.filesz:
                return segment.vaddr + offset - segment.offset
        return None


def read_functions(
    read: ReadAt, file_size: int, debug: tuple[ReadAt, int] | None = None
) -> Functions:
    """The functions of an ELF file; `debug` reads its separate debug information and says its size.

    Raises ElfError; a file without symbols has no functions.
    """
    header = read_header(read)
    segments = read_segments(read, header)
    sections = read_sections(read, header, file_size)
    rows = _read_rows(read, sections)
    if not any(section.type == SHT_SYMTAB for section in sections):
        rows += _read_debugdata(read, sections)
    lines, entries = _read_lines(read, sections), _read_entries(read, sections)
    if debug is not None:
        with suppress(ElfError):  # the file's own tables may still do
            inner, size = debug
            inner_sections = read_sections(inner, read_header(inner), size)
            rows += _read_rows(inner, inner_sections)
            lines = lines or _read_lines(inner, inner_sections)
            entries = entries or _read_entries(inner, inner_sections)
    go = _read_go(read, sections, header.entry)
    return Functions(_deduplicate(rows), segments, go, lines, entries)


def _read_lines(read: ReadAt, sections: list[Section]) -> Sections | None:
    """The sections of lines; None without, or where they are too large to go through."""
    found = read_contents(read, sections, _LINE_SECTIONS)
    line = found.get(".debug_line", b"")
    if not line or len(line) > MAX_LINE_BYTES:
        return None
    return Sections(line, found.get(".debug_line_str", b""), found.get(".debug_str", b""))


def _read_entries(read: ReadAt, sections: list[Section]) -> DebugSections | None:
    """The sections that tell what was inlined; None without."""
    found = read_contents(read, sections, _ENTRY_SECTIONS)
    contents = [found.get(name, b"") for name in _ENTRY_SECTIONS]
    return DebugSections(*contents) if contents[0] and contents[1] else None


def _read_go(read: ReadAt, sections: list[Section], entry: int) -> GoTable | None:
    found = {section.name: section for section in sections if section.type != SHT_NOBITS}
    table = found.get(".gopclntab") or found.get(".data.rel.ro.gopclntab")
    text, module = found.get(".text"), found.get(".go.module")
    if table is None or text is None or table.size > MAX_TABLE_BYTES:
        return None
    moduledata = read(module.offset, min(module.size, _MAX_MODULE_BYTES)) if module else b""
    try:
        content = read(table.offset, table.size)
        opened = open_table(content, table.addr, text.addr, moduledata)
        check_text(opened, entry)
    except GoTableError:
        return None
    return opened


def _read_rows(read: ReadAt, sections: list[Section]) -> list[tuple[int, int, str]]:
    rows = []
    left = MAX_TABLE_BYTES  # for all of them: sections may overlap, and there may be thousands
    for section in sections:
        if section.type not in (SHT_SYMTAB, SHT_DYNSYM) or section.link >= len(sections):
            continue
        strings = sections[section.link]
        if section.size + strings.size > left or strings.type == SHT_NOBITS:
            continue
        left -= section.size + strings.size
        names = read(strings.offset, strings.size)
        table = read(section.offset, section.size - section.size % SYMBOL.size)
        for name, info, _, index, value, size in SYMBOL.iter_unpack(table):
            if info & 15 in (STT_FUNC, STT_GNU_IFUNC) and index != 0:
                rows.append((value, size, string_at(names, name)))
    return rows


def _read_debugdata(read: ReadAt, sections: list[Section]) -> list[tuple[int, int, str]]:
    for section in sections:
        if section.name == ".gnu_debugdata" and section.type != SHT_NOBITS:
            try:
                return _read_packed(read(section.offset, min(section.size, MAX_TABLE_BYTES)))
            except (lzma.LZMAError, ElfError):
                return []  # the other tables may still do
    return []


def _read_packed(packed: bytes) -> list[tuple[int, int, str]]:
    unpacker = lzma.LZMADecompressor(memlimit=MAX_DEBUGDATA_BYTES * 2)
    data = unpacker.decompress(packed, MAX_DEBUGDATA_BYTES)

    def read(offset: int, size: int) -> bytes:
        return data[offset : offset + size]

    return _read_rows(read, read_sections(read, read_header(read), len(data)))


def _deduplicate(rows: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """One name an address: few leading underscores, then short, then first in the alphabet."""
    best: dict[int, tuple[tuple[int, int, str], int, str]] = {}
    for address, size, name in rows:
        plain = name.lstrip("_")
        rank = (len(name) - len(plain), len(plain), plain)
        known = best.get(address)
        if name and (known is None or rank < known[0]):
            best[address] = (rank, size, name)
    return [(address, size, name) for address, (_, size, name) in best.items()]
