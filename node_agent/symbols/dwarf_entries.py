"""Entries of `.debug_info`: units, and the attributes of the entries in them.

Format: DWARF 2 to 5, sections 7.5 and 7.17 (dwarfstd.org), 32-bit form. The input is hostile: what
can't be read is a DamagedDwarfError. Pure.
"""

from typing import NamedTuple

NAME, LOW_PC, HIGH_PC, ORIGIN, SPECIFICATION = 0x03, 0x11, 0x12, 0x31, 0x47  # DW_AT_*
SIBLING, LINES, RANGES, CALL_FILE, CALL_LINE = 0x01, 0x10, 0x55, 0x58, 0x59
LINKAGE_NAME, MIPS_LINKAGE_NAME = 0x6E, 0x2007
TEXTS_BASE, ADDRESSES_BASE, LISTS_BASE = 0x72, 0x73, 0x74

# DW_FORM_*: bytes of those with a fixed size. DW_FORM_ref_addr (0x10) had 8 in DWARF 2.
_FIXED = {0x01: 8, 0x05: 2, 0x06: 4, 0x07: 8, 0x0B: 1, 0x0C: 1, 0x0E: 4, 0x10: 4, 0x11: 1, 0x12: 2}
_FIXED |= {0x13: 4, 0x14: 8, 0x17: 4, 0x19: 0, 0x1C: 4, 0x1D: 4, 0x1E: 16, 0x1F: 4, 0x20: 8}
_FIXED |= {0x21: 0, 0x24: 8, 0x25: 1, 0x26: 2, 0x27: 3, 0x28: 4, 0x29: 1, 0x2A: 2, 0x2B: 3, 0x2C: 4}
_FIXED |= {0x1F20: 4, 0x1F21: 4}
_NUMBERS = (0x0D, 0x0F, 0x15, 0x1A, 0x1B, 0x22, 0x23)  # LEB128
_BLOCKS = {0x03: 2, 0x04: 4, 0x0A: 1, 0x09: 0, 0x18: 0}  # bytes of the length; 0: LEB128
_STRING, _STRP, _LINE_STRP, _IMPLICIT, _REF_ADDR, _SDATA = 0x08, 0x0E, 0x1F, 0x21, 0x10, 0x0D
_UNIT_REFERENCES = (0x11, 0x12, 0x13, 0x14, 0x15)
_TEXT_INDEXES = (0x1A, 0x25, 0x26, 0x27, 0x28)
_ADDRESS_INDEXES = (0x1B, 0x29, 0x2A, 0x2B, 0x2C)
ADDRESS_FORMS = (0x01, *_ADDRESS_INDEXES)
LIST_INDEX = 0x23  # DW_FORM_rnglistx
_ELSEWHERE = (0x1C, 0x1D, 0x20, 0x24, 0x1F20, 0x1F21)  # in another file, or a type
_MAX_ABBREVIATIONS = 100_000  # of one unit
_MAX_TEXT_BYTES = 4_096

Value = tuple[int, "int | str"]  # its form, and what it says


class DamagedDwarfError(ValueError):
    """Debug information contradicts itself, or has a form that isn't read."""


class DebugSections(NamedTuple):
    """The contents that entries are read from; all but the first two may be empty."""

    info: bytes
    abbrev: bytes
    str: bytes = b""
    line_str: bytes = b""
    str_offsets: bytes = b""
    addr: bytes = b""
    ranges: bytes = b""
    rnglists: bytes = b""


class Abbreviation(NamedTuple):
    """What entries of one kind are made of: (attribute, form, implicit value) each; `size` of their
    attributes in bytes, None where it varies."""

    tag: int
    has_children: bool
    attributes: tuple[tuple[int, int, int], ...]
    size: int | None


def leb(data: bytes, at: int) -> tuple[int, int]:
    """The ULEB128 number at `at`, and where the data goes on. Raises IndexError."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise DamagedDwarfError("a number of more than 64 bits")


def word(data: bytes, at: int, size: int) -> int:
    """The number of `size` bytes at `at`. Raises DamagedDwarfError beyond the end."""
    if at < 0 or at + size > len(data):
        raise DamagedDwarfError("a value lies beyond the end of its section")
    return int.from_bytes(data[at : at + size], "little")


class Unit:
    """One unit of `.debug_info` that begins at `start`. Raises DamagedDwarfError, IndexError.

    `root` are the attributes of its first entry, `children` where those behind it begin, `low_pc`
    what its ranges are relative to.
    """

    def __init__(self, sections: DebugSections, start: int) -> None:
        self.sections = sections
        self.start = start
        info = sections.info
        size = word(info, start, 4)
        self.end = start + 4 + size
        if size >= 0xFFFFFFF0 or self.end > len(info):
            raise DamagedDwarfError("a unit in 64-bit form, or one that reaches beyond the end")
        self.version = word(info, start + 4, 2)
        if self.version == 5:
            kind, self._table = info[start + 6], word(info, start + 8, 4)
            at = start + 12 + (8 if kind in (4, 5) else 0)
            self.has_code = kind in (1, 3)
        else:
            self._table, at = word(info, start + 6, 4), start + 11
            self.has_code = 2 <= self.version <= 4
        self._next_abbreviation = self._table
        self._abbreviations: dict[int, Abbreviation] = {}
        self._bases: dict[int, int] = {}
        self.root: dict[int, Value] = {}
        self.children, self.low_pc = self.end, 0
        if self.has_code:
            self._open(at)

    def _open(self, at: int) -> None:
        kind, at = self.entry_at(at)
        if kind is None:
            return
        # The bases first: what stands before them may need them.
        values, _ = self.attributes(kind, at)
        for base in (TEXTS_BASE, ADDRESSES_BASE, LISTS_BASE):
            self._bases[base] = self.number(values, base) or 0
        self.root, at = self.attributes(kind, at)
        if kind.has_children:
            self.children = at
        self.low_pc = self.number(self.root, LOW_PC) or 0

    def entry_at(self, at: int) -> tuple[Abbreviation | None, int]:
        """The kind of the entry at `at`, None at the end of a list of children, and where its
        attributes begin."""
        if not self.start < at < self.end:
            raise DamagedDwarfError("an entry outside its unit")
        code, at = leb(self.sections.info, at)
        return (self._abbreviation(code) if code else None), at

    def skip(self, kind: Abbreviation, at: int) -> int:
        """Where the entry ends whose attributes begin at `at`."""
        if kind.size is not None:
            return at + kind.size
        for _, form, _ in kind.attributes:
            at = self._pass(form, at)
        return at

    def attributes(self, kind: Abbreviation, at: int) -> tuple[dict[int, Value], int]:
        """Attributes of the entry, and where it ends. Texts are str; what lies in another file, and
        blocks, are left out; references count from the begin of the section."""
        values: dict[int, Value] = {}
        for attribute, form, implicit in kind.attributes:
            value = implicit if form == _IMPLICIT else self._value(form, at)
            if value is not None:
                values[attribute] = form, value
            at = self._pass(form, at)
        return values, at

    @staticmethod
    def number(values: dict[int, Value], attribute: int) -> int | None:
        """The attribute where it is a number."""
        value = values.get(attribute, (0, ""))[1]
        return value if isinstance(value, int) else None

    def indexed(self, base: int, index: int, size: int, table: bytes) -> int:
        """Entry `index` of the table that the unit's `base` points into."""
        return word(table, self._bases.get(base, 0) + index * size, size)

    def base(self, attribute: int) -> int:
        """Where the unit's part of a table begins."""
        return self._bases.get(attribute, 0)

    def _abbreviation(self, code: int) -> Abbreviation:
        data = self.sections.abbrev
        while code not in self._abbreviations:
            number, at = leb(data, self._next_abbreviation)
            if number == 0 or len(self._abbreviations) >= _MAX_ABBREVIATIONS:
                raise DamagedDwarfError("an entry of a kind that isn't described")
            tag, at = leb(data, at)
            has_children, at = data[at] != 0, at + 1
            attributes: list[tuple[int, int, int]] = []
            while True:
                attribute, at = leb(data, at)
                form, at = leb(data, at)
                implicit = 0
                if form == _IMPLICIT:
                    implicit, at = leb(data, at)
                if attribute == form == 0:
                    break
                attributes.append((attribute, form, implicit))
            sizes = [self._size(form) for _, form, _ in attributes]
            known = [size for size in sizes if size is not None]
            size = sum(known) if len(known) == len(sizes) else None
            self._next_abbreviation = at
            kind = Abbreviation(tag, has_children, tuple(attributes), size)
            self._abbreviations[number] = kind
        return self._abbreviations[code]

    def _size(self, form: int) -> int | None:
        return 8 if form == _REF_ADDR and self.version == 2 else _FIXED.get(form)

    def _pass(self, form: int, at: int) -> int:
        info, size = self.sections.info, self._size(form)
        if size is not None:
            return at + size
        if form in _NUMBERS:
            return leb(info, at)[1]
        if form == _STRING:
            end = info.find(b"\0", at, self.end)
            if end >= 0:
                return end + 1
        elif form in _BLOCKS:
            width = _BLOCKS[form]
            length, at = (word(info, at, width), at + width) if width else leb(info, at)
            if at + length <= self.end:
                return at + length
        raise DamagedDwarfError(f"a value of form {form:#x}")

    def _value(self, form: int, at: int) -> int | str | None:
        info, sections = self.sections.info, self.sections
        if form in _BLOCKS or form in _ELSEWHERE or form in (_SDATA, 0x1E):
            return None
        if form == _STRING:
            return _text(info, at)
        size = self._size(form)
        number = leb(info, at)[0] if size is None else word(info, at, size) if size else 1
        if form in (_STRP, _LINE_STRP):
            return _text(sections.str if form == _STRP else sections.line_str, number)
        if form in _UNIT_REFERENCES:
            return self.start + number
        if form in _TEXT_INDEXES:
            if TEXTS_BASE not in self._bases:
                return None
            return _text(sections.str, self.indexed(TEXTS_BASE, number, 4, sections.str_offsets))
        if form in _ADDRESS_INDEXES:
            if ADDRESSES_BASE not in self._bases:
                return None
            return self.indexed(ADDRESSES_BASE, number, 8, sections.addr)
        return number


def _text(texts: bytes, at: int) -> str:
    end = texts.find(b"\0", at, at + _MAX_TEXT_BYTES)
    return texts[at : end if end >= 0 else at + _MAX_TEXT_BYTES].decode("utf-8", "replace")
