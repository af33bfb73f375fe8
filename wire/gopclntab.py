"""Go's own table of functions and lines, `.gopclntab`, which also a stripped Go program carries.

Format: golang.org/s/go12symtab as changed by Go 1.18 and 1.20 (runtime/symtab.go, internal/abi,
debug/gosym). Little-endian with 8-byte pointers, Go 1.18 or newer. The input is hostile: every
place is checked, look-ups take a bounded number of steps. Pure.
"""

import struct

from wire.pprof import Line

_MAGICS = {0xFFFFFFF0: 118, 0xFFFFFFF1: 120}
_HEADER = struct.Struct("<IHBB8Q")  # magic, zero, quantum, pointer size, counts and offsets
_PAIR = struct.Struct("<II")
_WORD = struct.Struct("<I")
_INLINED = struct.Struct("<Iiii")  # kind, name, parent's pc from the entry, first line
_PCDATA_INLINE, _FUNCDATA_INLINE = 2, 3
_NOTHING = 0xFFFFFFFF
_ENTRY = "_rt0_"
MAX_FUNCTIONS = 4_000_000
MAX_STEPS = 100_000  # of one table of one function
MAX_INLINED = 64  # levels of inlining
MAX_TEXT_BYTES = 4_096
# Where moduledata keeps `text` and `gofunc` (runtime/symtab.go, Go 1.20 to 1.26).
_MODULE_TEXT, _MODULE_GOFUNC = 176, 320


class GoTableError(ValueError):
    """The table cannot be read: of another version, or its parts contradict each other."""


class GoTable:
    """An opened table.

    `text_start` is the address of `runtime.text`, which the table's addresses count from, if the
    table doesn't say; then `knows_text` is False.
    `inline_base` is where in `data` the trees of inlined functions begin (`go:func.*`), None where
    they are elsewhere. Raises GoTableError.
    """

    def __init__(self, data: bytes, text_start: int, inline_base: int | None = None) -> None:
        if len(data) < _HEADER.size:
            raise GoTableError("the table is too short")
        magic, zero, self._quantum, pointer, *words = _HEADER.unpack_from(data)
        version = _MAGICS.get(magic)
        if version is None or zero or pointer != 8 or self._quantum not in (1, 2, 4):
            raise GoTableError("not a table of Go 1.18 or newer for 64 bits")
        count, _, header_text, names, units, files, values, functions = words
        if not 0 < count <= MAX_FUNCTIONS or functions + (2 * count + 1) * 4 > len(data):
            raise GoTableError("the table's functions reach beyond its end")
        if max(names, units, files, values) > len(data):
            raise GoTableError("a part of the table begins beyond its end")
        self._data = data
        self._count = count
        self._text = header_text or text_start
        self.knows_text = header_text != 0
        self._names, self._units, self._files = names, units, files
        self._values, self._functions = values, functions
        # A function's record grew by its first line in Go 1.20.
        self._head = 44 if version == 120 else 40
        self._inline_base = inline_base if version == 120 else None

    def lookup(self, address: int) -> list[Line]:
        """What runs at `address`, the innermost function first; empty outside every function.

        Raises GoTableError when the table contradicts itself there.
        """
        try:
            return self._lookup(address - self._text)
        except (struct.error, IndexError) as error:
            raise GoTableError("the table is damaged") from error

    def _lookup(self, offset: int) -> list[Line]:
        index = self._find(offset)
        if index is None:
            return []
        entry, place = _PAIR.unpack_from(self._data, self._functions + 8 * index)
        record = _Record(self, self._functions + place)
        at = offset - entry
        lines: list[Line] = []
        inlined = record.inlined(at)
        while inlined is not None:
            if len(lines) == MAX_INLINED:
                raise GoTableError(f"more than {MAX_INLINED} functions inlined into each other")
            _, name, parent_at, _ = inlined
            lines.append(Line(self.name(name), *record.place(at)))
            at = parent_at
            inlined = record.inlined(at)
        lines.append(Line(self.name(record.name), *record.place(at)))
        return lines

    def _find(self, offset: int) -> int | None:
        """Index of the function that holds `offset`. The last entry is only the end of the text."""
        low, high = 0, self._count
        if not self._entry(0) <= offset < self._entry(high):
            return None
        while high - low > 1:
            middle = (low + high) // 2
            if self._entry(middle) <= offset:
                low = middle
            else:
                high = middle
        return low

    def _entry(self, index: int) -> int:
        return self.word(self._functions + 8 * index)

    def word(self, place: int) -> int:
        """The u32 at `place` of the table."""
        if place < 0:
            raise GoTableError("the table points before its beginning")
        value: int = _WORD.unpack_from(self._data, place)[0]
        return value

    def name(self, offset: int) -> str:
        """The function's name at `offset` of the names."""
        return self._string(self._names + offset)

    def file(self, unit: int, number: int) -> str:
        """The path of a unit's file `number`, empty when it has none."""
        if number < 0:
            return ""
        place = self.word(self._units + 4 * (unit + number))
        return "" if place == _NOTHING else self._string(self._files + place)

    def value(self, table: int, at: int) -> int:
        """What the pc-value table at offset `table` says for `at` bytes after the entry; -1 where
        it says nothing."""
        if table == 0:
            return -1
        place, value, end = self._values + table, -1, 0
        for step in range(MAX_STEPS):
            delta, place = self._varint(place)
            if delta == 0 and step:
                return -1
            value += (delta >> 1) ^ -(delta & 1)
            length, place = self._varint(place)
            end += length * self._quantum
            if at < end:
                return value
        raise GoTableError(f"a table of more than {MAX_STEPS} steps")

    def inlined_call(self, offset: int, index: int) -> tuple[int, int, int, int] | None:
        """Entry `index` of the tree at `offset` of the trees: kind, name, parent's place, line."""
        if self._inline_base is None or offset == _NOTHING:
            return None
        place = self._inline_base + offset + _INLINED.size * index
        if place < 0 or place + _INLINED.size > len(self._data):
            return None
        kind, name, parent_at, line = _INLINED.unpack_from(self._data, place)
        return kind, name, parent_at, line

    def record_word(self, record: int, index: int) -> int:
        """Word `index` behind the fixed part of a function's record."""
        return self.word(record + self._head + 4 * index)

    def record_tables(self, record: int) -> tuple[int, int]:
        """How many pc-data tables and pieces of function data a record has."""
        tables = self.word(record + 28)
        pieces = self._data[record + self._head - 1]
        return tables, pieces

    def _varint(self, place: int) -> tuple[int, int]:
        value = shift = 0
        while shift < 35:
            byte = self._data[place]
            place += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFFFFFF, place
            shift += 7
        raise GoTableError("a number of more than 32 bits")

    def _string(self, place: int) -> str:
        if not 0 <= place < len(self._data):
            raise GoTableError("a text lies beyond the end of the table")
        limit = min(place + MAX_TEXT_BYTES, len(self._data))
        end = self._data.find(b"\0", place, limit)
        return self._data[place : end if end >= 0 else limit].decode("utf-8", "replace")


class _Record:
    """One function's record (`runtime._func`)."""

    def __init__(self, table: GoTable, place: int) -> None:
        self._table = table
        self._place = place
        self.name = table.word(place + 4)
        self._file = table.word(place + 20)
        self._line = table.word(place + 24)
        self._unit = table.word(place + 32)
        self._tables, self._pieces = table.record_tables(place)

    def place(self, at: int) -> tuple[str, int]:
        """File and line at `at` bytes after the entry."""
        number = self._table.value(self._file, at)
        line = self._table.value(self._line, at)
        return self._table.file(self._unit, number), max(0, line)

    def inlined(self, at: int) -> tuple[int, int, int, int] | None:
        """The innermost inlined call that `at` lies in."""
        if self._tables <= _PCDATA_INLINE or self._pieces <= _FUNCDATA_INLINE:
            return None
        index = self._table.value(self._table.record_word(self._place, _PCDATA_INLINE), at)
        if index < 0:
            return None
        tree = self._table.record_word(self._place, self._tables + _FUNCDATA_INLINE)
        return self._table.inlined_call(tree, index)


def module_addresses(moduledata: bytes) -> tuple[int, int]:
    """Addresses of `runtime.text` and `go:func.*` in the content of `.go.module` (Go 1.26); zeros
    where it is too short."""
    if len(moduledata) < _MODULE_GOFUNC + 8:
        return 0, 0
    return (
        int.from_bytes(moduledata[_MODULE_TEXT : _MODULE_TEXT + 8], "little"),
        int.from_bytes(moduledata[_MODULE_GOFUNC : _MODULE_GOFUNC + 8], "little"),
    )


def open_table(
    table: bytes, table_address: int, text_address: int, moduledata: bytes = b""
) -> GoTable:
    """The table of an ELF file from its sections `.gopclntab` (with its address), `.text` and, if
    there is one, `.go.module`. Raises GoTableError."""
    text, trees = module_addresses(moduledata)
    inside = table_address < trees < table_address + len(table)
    opened = GoTable(table, text or text_address, trees - table_address if inside else None)
    opened.knows_text = opened.knows_text or text != 0
    return opened


def check_text(table: GoTable, entry: int) -> None:
    """Raise GoTableError unless it is known where the text begins that `table` counts from.

    A table that doesn't say counts from `.text`, which is right only where no C code stands before:
    then the program, whose entry point is `entry`, begins in Go.
    """
    if not table.knows_text:
        lines = table.lookup(entry)
        if not lines or not lines[-1].function.startswith(_ENTRY):
            raise GoTableError("it is not known where Go's text begins")
