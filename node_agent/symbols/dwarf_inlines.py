"""Functions that a compiler inlined, by address, from `.debug_info`. For the local symbolizer.

Format: DWARF 2 to 5, sections 2.17 (addresses), 3.3.8 (inlined calls). The input is hostile: what
can't be read ends its unit, and the number of entries is bounded. Pure.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from node_agent.symbols.dwarf_entries import (
    CALL_FILE,
    CALL_LINE,
    LINES,
    LINKAGE_NAME,
    MIPS_LINKAGE_NAME,
    NAME,
    ORIGIN,
    SIBLING,
    SPECIFICATION,
    DamagedDwarfError,
    DebugSections,
    Unit,
    Value,
    word,
)
from node_agent.symbols.dwarf_ranges import Ranges, read_ranges

MAX_ENTRIES = 2_000_000  # about 5 s of CPU
MAX_UNITS = 100_000
MAX_LEVELS = 256
MAX_INLINED = 64  # functions inlined into each other
_MAX_HOPS = 8
_SUBPROGRAM, _INLINED, _BLOCK = 0x2E, 0x1D, 0x0B  # DW_TAG_*


class Call(NamedTuple):
    """A function that was inlined (mangled name, "" without one): the place of its call, a number
    of the files of the unit whose lines begin at `lines`, -1 where that isn't known."""

    function: str
    file: int
    line: int
    lines: int


def find_inlined(
    sections: DebugSections, addresses: Sequence[int], max_entries: int = MAX_ENTRIES
) -> dict[int, list[Call]]:
    """The calls that were inlined at each of these `addresses` (of the file, not loaded) that has
    any, the outermost first."""
    wanted = sorted(set(addresses))
    starts: list[int] = []
    covering: list[tuple[Unit, list[int]]] = []
    for unit in _units(sections, starts):
        try:
            inside = _inside(wanted, read_ranges(unit, unit.root))
        except (DamagedDwarfError, IndexError):
            continue
        if inside:
            covering.append((unit, inside))
    walk = _Walk(sections, starts, max_entries)
    for unit, inside in covering:
        with suppress(DamagedDwarfError, IndexError):  # the next unit may be sound
            walk.run(unit, inside)
    return {address: calls for address, calls in walk.found.items() if calls}


class _Walk:
    """Goes through the entries of units; `found` has the calls of each address that is in a
    function, the outermost first."""

    def __init__(self, sections: DebugSections, starts: list[int], max_entries: int) -> None:
        self.found: dict[int, list[Call]] = {}
        self._sections = sections
        self._starts = starts
        self._left = max_entries
        self._units: dict[int, Unit] = {}

    def run(self, unit: Unit, wanted: list[int]) -> None:
        """Look for those `wanted` (sorted) in `unit`."""
        self._units[unit.start] = unit
        levels: list[list[int]] = [[]]  # addresses that the entries around lie at
        at = unit.children
        while levels and at < unit.end and self._left > 0:
            self._left -= 1
            kind, values_at = unit.entry_at(at)
            if kind is None:
                levels.pop()
                at = values_at
                continue
            inside = levels[-1]
            if kind.tag == _SUBPROGRAM or (inside and kind.tag in (_INLINED, _BLOCK)):
                values, at = unit.attributes(kind, values_at)
                if kind.tag == _SUBPROGRAM:
                    inside = self._enter(unit, values, wanted)
                elif kind.tag == _INLINED:
                    inside = self._enter_inlined(unit, values, inside)
                sibling = unit.number(values, SIBLING)
                if not inside and sibling is not None and at < sibling <= unit.end:
                    at = sibling
                    continue
            else:
                at = unit.skip(kind, values_at)
            if kind.has_children:
                levels.append(inside)
                if len(levels) > MAX_LEVELS:
                    raise DamagedDwarfError(f"entries of more than {MAX_LEVELS} levels")

    def _enter(self, unit: Unit, values: dict[int, Value], wanted: list[int]) -> list[int]:
        """Addresses in a function that no other has had: equal ones are folded into one."""
        inside = [a for a in _inside(wanted, read_ranges(unit, values)) if a not in self.found]
        for address in inside:
            self.found[address] = []
        return inside

    def _enter_inlined(self, unit: Unit, values: dict[int, Value], around: list[int]) -> list[int]:
        inside = _inside(around, read_ranges(unit, values))
        if inside:
            lines = unit.number(unit.root, LINES)
            call = Call(
                self._name(unit, values),
                unit.number(values, CALL_FILE) or 0,
                unit.number(values, CALL_LINE) or 0,
                -1 if lines is None else lines,
            )
            for address in inside:
                if len(self.found[address]) < MAX_INLINED:
                    self.found[address].append(call)
        return inside

    def _name(self, unit: Unit, values: dict[int, Value]) -> str:
        """The linker's name, else the plain one, of an entry or of what it refers to."""
        plain = ""
        for _ in range(_MAX_HOPS):
            for attribute in (LINKAGE_NAME, MIPS_LINKAGE_NAME, NAME):
                text = values.get(attribute, (0, 0))[1]
                if isinstance(text, str) and text:
                    if attribute != NAME:
                        return text
                    plain = plain or text
            origin = unit.number(values, ORIGIN) or unit.number(values, SPECIFICATION)
            if origin is None:
                break
            try:
                unit = self._unit_of(origin)
                kind, at = unit.entry_at(origin)
                values = unit.attributes(kind, at)[0] if kind is not None else {}
            except (DamagedDwarfError, IndexError):
                break
        return plain

    def _unit_of(self, offset: int) -> Unit:
        index = bisect_right(self._starts, offset) - 1
        if index < 0:
            raise DamagedDwarfError("a reference to nothing")
        start = self._starts[index]
        if start not in self._units:
            self._units[start] = Unit(self._sections, start)
        return self._units[start]


def _units(sections: DebugSections, starts: list[int]) -> Iterator[Unit]:
    """All units with code; `starts` gets the places of all."""
    at = 0
    while at + 11 <= len(sections.info) and len(starts) < MAX_UNITS:
        starts.append(at)
        try:
            size = word(sections.info, at, 4)
            if size >= 0xFFFFFFF0:  # the 64-bit form
                return
            unit = Unit(sections, at)
            if unit.has_code:
                yield unit
        except (DamagedDwarfError, IndexError):
            pass  # the next one may be sound
        at += 4 + size


def _inside(wanted: list[int], ranges: Ranges) -> list[int]:
    """Those `wanted` (sorted) that lie in the ranges."""
    if len(ranges) == 1:
        low, high = ranges[0]
        return wanted[bisect_left(wanted, low) : bisect_left(wanted, high)]
    inside: set[int] = set()
    for low, high in ranges:
        inside.update(wanted[bisect_left(wanted, low) : bisect_left(wanted, high)])
    return sorted(inside)
