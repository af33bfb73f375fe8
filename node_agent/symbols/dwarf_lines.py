"""Lines of addresses from `.debug_line`, for the local symbolizer.

Format: DWARF 2 to 5, chapter "Line Number Information" (dwarfstd.org), 32-bit form. The input is
hostile: what can't be read ends its unit, and the work is bounded by the section's size. Pure.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

MAX_LINE_BYTES = 24 << 20  # about 7 s of CPU
MAX_FILES = 100_000  # of one unit
_MAX_TEXT_BYTES = 4_096
_PATH, _DIRECTORY = 1, 2  # DW_LNCT_*
_FIXED_FORMS = {0x0B: 1, 0x05: 2, 0x06: 4, 0x07: 8, 0x1E: 16}  # DW_FORM_data*
_FORM_STRING, _FORM_STRP, _FORM_LINE_STRP, _FORM_UDATA, _FORM_BLOCK = 0x08, 0x0E, 0x1F, 0x0F, 0x09
_COPY, _ADVANCE_PC, _ADVANCE_LINE, _SET_FILE, _CONST_ADD_PC, _FIXED_ADVANCE = 1, 2, 3, 4, 8, 9
_END_SEQUENCE, _SET_ADDRESS = 1, 2

Place = tuple[str, int]  # path and line


class Sections(NamedTuple):
    """The contents that lines are read from; texts may be empty."""

    line: bytes
    line_str: bytes = b""
    str: bytes = b""


class _DamagedError(ValueError):
    pass


def find_lines(sections: Sections, addresses: Sequence[int]) -> dict[int, Place]:
    """Path and line of those `addresses` (of the file, not loaded) that are in the table."""
    wanted = sorted(set(addresses))
    found: dict[int, Place] = {}
    data = sections.line
    at = 0
    while wanted and at + 4 <= min(len(data), MAX_LINE_BYTES):
        size = int.from_bytes(data[at : at + 4], "little")
        end = at + 4 + size
        if size >= 0xFFFFFFF0 or end > len(data):  # the 64-bit form, or damage
            break
        try:
            unit = _Unit(sections, at + 4, end)
            for address, file, line in unit.run(wanted):
                found.setdefault(address, (unit.path(file), line))
        except (_DamagedError, IndexError):
            pass  # the next unit may be sound
        at = end
    return found


def read_paths(sections: Sections, at: int) -> list[str]:
    """The paths of the files of the unit whose lines begin at `at`; none where it is damaged."""
    size = int.from_bytes(sections.line[at : at + 4], "little")
    if at < 0 or at + 4 + size > len(sections.line):
        return []
    try:
        return _Unit(sections, at + 4, at + 4 + size).paths()
    except (_DamagedError, IndexError):
        return []


class _Unit:
    """The header of one unit's program."""

    def __init__(self, sections: Sections, at: int, end: int) -> None:
        self._sections = sections
        self._data = sections.line
        self._end = end
        self._at = at
        self._version = self._number(2)
        if not 2 <= self._version <= 5:
            raise _DamagedError
        if self._version == 5 and (self._number(1) != 8 or self._number(1) != 0):
            raise _DamagedError
        length = self._number(4)
        self._program = self._at + length
        self._step = self._number(1)
        if self._version >= 4:
            self._number(1)
        self._number(1)
        base = self._number(1)
        self._line_base = base - 256 if base >= 128 else base
        self._line_range = self._number(1)
        self._opcode_base = self._number(1)
        if self._line_range == 0 or self._opcode_base == 0:
            raise _DamagedError
        self._lengths = [self._number(1) for _ in range(self._opcode_base - 1)]
        if self._version == 5:
            self._folders = [path for path, _ in self._entries()]
            self._files = self._entries()
        else:
            self._folders = [""]
            while folder := self._text():
                self._folders.append(folder)
                self._check(len(self._folders))
            self._files = [("", 0)]
            while name := self._text():
                self._files.append((name, self._uleb()))
                self._uleb()
                self._uleb()
                self._check(len(self._files))

    def paths(self) -> list[str]:
        """The path of each file."""
        return [self.path(number) for number in range(len(self._files))]

    def path(self, number: int) -> str:
        """The path of a file, relative to where the compiler ran if it says no more."""
        if not 0 <= number < len(self._files):
            return ""
        name, folder = self._files[number]
        if name.startswith("/") or not 0 <= folder < len(self._folders):
            return name
        parts = [self._folders[folder], name]
        if folder and not parts[0].startswith("/") and self._folders[0]:
            parts.insert(0, self._folders[0])
        return "/".join(part for part in parts if part)

    def run(self, wanted: Sequence[int]) -> list[tuple[int, int, int]]:
        """(address, file, line) of those `wanted` (sorted) that the program covers."""
        data, end = self._data, self._end
        base, line_base, line_range = self._opcode_base, self._line_base, self._line_range
        self._at = self._program
        found = []
        address, file, line = 0, 1, 1
        last: tuple[int, int] | None = None  # file and line of the row before, in this sequence
        index = 0
        while self._at < end:
            opcode = data[self._at]
            self._at += 1
            ended = False
            if opcode >= base:
                moved = opcode - base
                address += moved // line_range * self._step
                line += line_base + moved % line_range
            elif opcode == _COPY:
                pass
            elif opcode == 0:
                size = self._uleb()
                after = self._at + size
                kind = self._number(1) if size else 0
                if kind == _SET_ADDRESS and size == 9:
                    address = self._number(8)
                ended = kind == _END_SEQUENCE
                self._at = after
                if not ended:
                    continue
            else:
                if opcode == _ADVANCE_PC:
                    address += self._uleb() * self._step
                elif opcode == _ADVANCE_LINE:
                    line += self._sleb()
                elif opcode == _SET_FILE:
                    file = self._uleb()
                elif opcode == _CONST_ADD_PC:
                    address += (255 - base) // line_range * self._step
                elif opcode == _FIXED_ADVANCE:
                    address += self._number(2)
                else:
                    for _ in range(self._lengths[opcode - 1]):
                        self._uleb()
                continue
            # A row: what the row before said holds up to here.
            if last is None:
                index = bisect_left(wanted, address)
            else:
                while index < len(wanted) and wanted[index] < address:
                    found.append((wanted[index], *last))
                    index += 1
            last = (file, line)
            if ended:
                address, file, line, last = 0, 1, 1, None
        return found

    def _entries(self) -> list[tuple[str, int]]:
        """A table of DWARF 5: path and folder of each entry."""
        formats = [(self._uleb(), self._uleb()) for _ in range(self._number(1))]
        count = self._uleb()
        self._check(count)
        entries = []
        for _ in range(count if formats else 0):
            path, folder = "", 0
            for content, form in formats:
                value = self._value(form)
                if content == _PATH and isinstance(value, str):
                    path = value
                elif content == _DIRECTORY and isinstance(value, int):
                    folder = value
            entries.append((path, folder))
        return entries

    def _value(self, form: int) -> "str | int":
        if form == _FORM_STRING:
            return self._text()
        if form in (_FORM_STRP, _FORM_LINE_STRP):
            texts = self._sections.str if form == _FORM_STRP else self._sections.line_str
            return _text_at(texts, self._number(4))
        if form == _FORM_UDATA:
            return self._uleb()
        if form == _FORM_BLOCK:
            self._at += self._uleb()
            return 0
        if form not in _FIXED_FORMS:
            raise _DamagedError
        return self._number(_FIXED_FORMS[form])

    def _check(self, count: int) -> None:
        if count > MAX_FILES or self._at > self._end:
            raise _DamagedError

    def _number(self, size: int) -> int:
        if self._at + size > self._end:
            raise _DamagedError
        self._at += size
        return int.from_bytes(self._data[self._at - size : self._at], "little")

    def _uleb(self) -> int:
        value = shift = 0
        while shift < 70:
            byte = self._number(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
        raise _DamagedError

    def _sleb(self) -> int:
        before = self._at
        value = self._uleb()
        bits = 7 * (self._at - before)
        return value - (1 << bits) if value >> (bits - 1) & 1 else value

    def _text(self) -> str:
        text = _text_at(self._data, self._at)
        end = self._data.find(b"\0", self._at, self._end)
        if end < 0:
            raise _DamagedError
        self._at = end + 1
        return text


def _text_at(texts: bytes, at: int) -> str:
    if at >= len(texts):
        return ""
    limit = min(at + _MAX_TEXT_BYTES, len(texts))
    end = texts.find(b"\0", at, limit)
    return texts[at : end if end >= 0 else limit].decode("utf-8", "replace")
