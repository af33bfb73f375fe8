"""Where the code of an entry of `.debug_info` lies.

Format: DWARF 2 to 5, section 2.17 (dwarfstd.org). The input is hostile: what can't be read is a
DamagedDwarfError, or an IndexError beyond the end of a section. Pure.
"""

from collections.abc import Iterator

from node_agent.symbols.dwarf_entries import (
    ADDRESS_FORMS,
    ADDRESSES_BASE,
    HIGH_PC,
    LIST_INDEX,
    LISTS_BASE,
    LOW_PC,
    RANGES,
    DamagedDwarfError,
    Unit,
    Value,
    leb,
    word,
)

MAX_RANGES = 10_000  # of one entry
_LAST_ADDRESS = (1 << 64) - 1

Ranges = list[tuple[int, int]]


def read_ranges(unit: Unit, values: dict[int, Value]) -> Ranges:
    """Where an entry's code lies, [low, high) each; empty for what has none."""
    low, high = unit.number(values, LOW_PC), unit.number(values, HIGH_PC)
    if low is not None and high is not None:
        return [(low, high if values[HIGH_PC][0] in ADDRESS_FORMS else low + high)]
    place = unit.number(values, RANGES)
    if place is None:
        return []
    if unit.version < 5:
        return list(_old_ranges(unit, place))
    if values[RANGES][0] == LIST_INDEX:
        lists = unit.sections.rnglists
        place = unit.base(LISTS_BASE) + unit.indexed(LISTS_BASE, place, 4, lists)
    return list(_new_ranges(unit, place))


def _old_ranges(unit: Unit, at: int) -> Iterator[tuple[int, int]]:
    base = unit.low_pc
    for _ in range(MAX_RANGES):
        low, high = word(unit.sections.ranges, at, 8), word(unit.sections.ranges, at + 8, 8)
        at += 16
        if low == high == 0:
            return
        if low == _LAST_ADDRESS:
            base = high
        elif low < high:
            yield base + low, base + high


def _new_ranges(unit: Unit, at: int) -> Iterator[tuple[int, int]]:
    """DW_RLE_* (DWARF 5, section 7.25)."""
    data, base = unit.sections.rnglists, unit.low_pc

    def indexed(index: int) -> int:
        return unit.indexed(ADDRESSES_BASE, index, 8, unit.sections.addr)

    for _ in range(MAX_RANGES):
        kind, at = data[at], at + 1
        if kind == 0:
            return
        if kind in (1, 2, 3, 4):
            first, at = leb(data, at)
            if kind == 1:
                base = indexed(first)
                continue
            second, at = leb(data, at)
            if kind == 4:
                yield base + first, base + second
            else:
                low = indexed(first)
                yield low, indexed(second) if kind == 2 else low + second
        elif kind == 5:
            base, at = word(data, at, 8), at + 8
        elif kind in (6, 7):
            low, at = word(data, at, 8), at + 8
            if kind == 6:
                high, at = word(data, at, 8), at + 8
            else:
                length, at = leb(data, at)
                high = low + length
            yield low, high
        else:
            raise DamagedDwarfError(f"a range of kind {kind}")
