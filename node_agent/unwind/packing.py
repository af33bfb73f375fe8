"""Unwind rows in the form that the kernel program searches: a third of their size.

What a block looks like: struct row_block of bpf/events.h. Two bytes hold nearly every row, because
few rules are common and the upper bits of a pc are told by where the row lies.
"""

from array import array
from bisect import bisect_left
from collections import Counter
from itertools import chain, compress, count, repeat
from operator import and_, ne, or_

from node_agent.kernel.structs import (
    ROW_BLOCK,
    ROW_CELL_BYTES,
    ROW_PAGE_BITS,
    ROW_REGION,
    ROW_REGION_BITS,
    ROW_RULE,
)
from node_agent.unwind.errors import NoRowsError
from node_agent.unwind.rows import MAX_BLOCK_BYTES, MAX_SIGNALS, PackedRows, Rows
from node_agent.unwind.rules import UNSUPPORTED, Rule

_PAGE = 1 << ROW_PAGE_BITS
_REGION = 1 << ROW_REGION_BITS
_CODES = 1 << 16 - ROW_PAGE_BITS
_SLOT_BYTES = 2
_MAX_IN_REGION = 0xFFFF  # slots: what an end of a page can say


def pack_rows(rows: Rows) -> PackedRows:
    """The same rows, packed. Raises NoRowsError where they are beyond what a block can hold."""
    words = array("I", rows.rows)
    pcs, rules = words[0::2], words[1::2]
    # A row that says what the one before it says is none.
    is_new = bytearray(chain(b"\1", map(ne, rules, rules[1:])))[: len(rules)]
    if not all(is_new):
        pcs, rules = array("I", compress(pcs, is_new)), array("I", compress(rules, is_new))
    notes = dict(rows.notes)
    table = _table(rules, notes)
    block = _block(pcs, rules, table) if pcs else b""
    if len(block) > MAX_BLOCK_BYTES:
        raise NoRowsError(f"{len(block)} bytes of rows; at most {MAX_BLOCK_BYTES} can be used")
    return PackedRows(
        block,
        len(pcs),
        rows.base,
        rows.segments,
        notes,
        rows.frame_pointers,
        tuple(_signal_pcs(pcs, rules)),
    )


def _table(rules: "array[int]", notes: dict[str, int]) -> list[int]:
    """The distinct rules, the commonest first. Those that no code is left for are made unsupported
    in `rules`, and counted."""
    counts = Counter(rules)
    table = sorted(counts, key=lambda rule: (-counts[rule], rule))
    most = _CODES * _CODES
    if len(table) <= most:
        return table
    rest = set(table[most - 1 :])
    table = [rule for rule in table if rule not in rest][: most - 1]
    unsupported = UNSUPPORTED >> 32
    for index, rule in enumerate(rules):
        if rule in rest and rule != unsupported:
            rules[index] = unsupported
            notes["rules beyond the table"] = notes.get("rules beyond the table", 0) + 1
    return table if unsupported in table else [*table, unsupported]


def _block(pcs: "array[int]", rules: "array[int]", table: list[int]) -> bytes:
    """A block of rows of ascending `pcs`; `table` has their distinct rules by number."""
    short = _CODES
    while short + (_CODES - short) * _CODES < len(table):
        short -= 1
    slots, doubles = _slots(pcs, rules, table, short)
    starts, ends = _directory(pcs, doubles)
    first_region = pcs[0] >> ROW_REGION_BITS
    head = ROW_BLOCK.pack(first_region, len(starts), len(table), short)
    ends_at = len(head) + (len(starts) + 1) * ROW_REGION.size + len(table) * ROW_RULE.size
    ends_at //= _SLOT_BYTES
    slots_at = ends_at + len(ends)
    regions = array("I")
    for start, place in starts:
        regions.extend((slots_at + start, 0 if place is None else ends_at + place))
    regions.extend((slots_at + len(slots), 0))
    whole = b"".join(map(bytes, (head, regions, array("I", table), ends, slots)))
    return whole + bytes(-len(whole) % ROW_CELL_BYTES)


def _slots(
    pcs: "array[int]", rules: "array[int]", table: list[int], short: int
) -> tuple["array[int]", "array[int]"]:
    """All slots, and which rows (by number) take two."""
    codes: dict[int, int] = {}  # of each rule its slot, but for the pc
    firsts: dict[int, int] = {}  # and the slot before it, of those that take two
    for number, rule in enumerate(table):
        code = number
        if number >= short:
            more, low = divmod(number - short, _CODES)
            code, firsts[rule] = short + more, low << ROW_PAGE_BITS
        codes[rule] = code << ROW_PAGE_BITS
    places = map(and_, pcs, repeat(_PAGE - 1))
    lasts = array("H", map(or_, places, map(codes.__getitem__, rules)))
    doubles = array("I", compress(count(), map(firsts.__contains__, rules)))
    slots = array("H")
    begin = 0
    for row in doubles:
        slots.extend(lasts[begin:row])
        slots.append(lasts[row] & (_PAGE - 1) | firsts[rules[row]])
        begin = row
    slots.extend(lasts[begin:])
    return slots, doubles


def _directory(
    pcs: "array[int]", doubles: "array[int]"
) -> tuple[list[tuple[int, int | None]], "array[int]"]:
    """For each region its first slot and which of the ends are its pages', None for a region
    without rows; the ends."""
    starts: list[tuple[int, int | None]] = []
    ends = array("H")
    row = 0
    for region in range(pcs[0] >> ROW_REGION_BITS, (pcs[-1] >> ROW_REGION_BITS) + 1):
        start, begin = row + bisect_left(doubles, row), region << ROW_REGION_BITS
        if pcs[row] >= begin + _REGION:
            starts.append((start, None))
            continue
        starts.append((start, len(ends)))
        for end in range(begin + _PAGE, begin + _REGION + 1, _PAGE):
            row = bisect_left(pcs, end, row, min(row + _PAGE, len(pcs)))
            slot = row + bisect_left(doubles, row)
            if slot - start > _MAX_IN_REGION:
                raise NoRowsError(f"more than {_MAX_IN_REGION} rows in {_REGION} bytes of code")
            ends.append(slot - start)
    return starts, ends


def _signal_pcs(pcs: "array[int]", rules: "array[int]") -> list[int]:
    """Where rows of the rule Rule.SIGNAL begin."""
    found: list[int] = []
    kinds = rules.tobytes()[ROW_RULE.size - 1 :: ROW_RULE.size]
    at = kinds.find(Rule.SIGNAL)
    while at >= 0 and len(found) < MAX_SIGNALS:
        found.append(pcs[at])
        at = kinds.find(Rule.SIGNAL, at + 1)
    return found
