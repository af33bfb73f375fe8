"""Packed rows say what the rows say, at every pc: looked up as bpf/rows.h does."""

import random
import shutil
import sys
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from node_agent.kernel.structs import ROW_BLOCK, ROW_CELL_BYTES, ROW_REGION
from node_agent.unwind import packing
from node_agent.unwind.errors import NoRowsError
from node_agent.unwind.packing import pack_rows
from node_agent.unwind.rows import CodeSegment, PackedRows, Rows
from node_agent.unwind.rules import GAP, SIGNAL, UNSUPPORTED, Rule, word

SEGMENTS = (CodeSegment(0x1000, 0x401000, 0x5000),)
ROW_STEPS = 12  # of bpf/rows.h


def find_rule(block: bytes, pc: int) -> int | None:
    """The rule for `pc`, as find_rule() of bpf/rows.h finds it; None before all rows."""

    def half(index: int) -> int:
        return int.from_bytes(block[2 * index : 2 * index + 2], "little")

    first_region, region_count, rule_count, short_codes = ROW_BLOCK.unpack_from(block)
    if pc >> 16 < first_region:
        return None
    number = min((pc >> 16) - first_region, region_count)
    first, pages = ROW_REGION.unpack_from(block, ROW_BLOCK.size + number * ROW_REGION.size)
    low = high = first
    if pages:
        page = pc >> 10 & 63
        high += half(pages + page)
        low += half(pages + page - 1) if page else 0
    for _ in range(ROW_STEPS):
        if low >= high:
            break
        middle = low + (high - low) // 2
        if half(middle) % 1024 <= pc % 1024:
            low = middle + 1
        else:
            high = middle
    assert low >= high
    if not number and low == first:
        return None
    code = half(low - 1) >> 10
    if code >= short_codes:
        code = short_codes + (code - short_codes) * 64 + (half(low - 2) >> 10)
    assert code < rule_count
    at = ROW_BLOCK.size + (region_count + 1) * ROW_REGION.size + 4 * code
    return int.from_bytes(block[at : at + 4], "little")


def make(rows: Iterable[tuple[int, int]]) -> Rows:
    """Rows of (pc, word of node_agent/unwind/rules.py)."""
    return Rows(array("Q", (pc | rule for pc, rule in rows)).tobytes(), 0x400000, SEGMENTS, {})


def check(rows: Rows, packed: PackedRows, step: int = 1) -> None:
    """Every `step`-th row and what is around its pc."""
    words = memoryview(rows.rows).cast("Q")
    pcs = [word & 0xFFFFFFFF for word in words]
    last = pcs[-1]
    asked = {0, last, last + 1, last + (1 << 17), 0xFFFFFFFF}
    for index in range(0, len(pcs), step):
        pc, following = pcs[index], pcs[min(index + 1, len(pcs) - 1)]
        asked |= {pc - 1, pc, pc + 1, (pc + following) // 2, pc | 1023, pc | 0xFFFF}
    for pc in asked:
        if 0 <= pc <= 0xFFFFFFFF:
            index = bisect_right(pcs, pc) - 1
            wanted = words[index] >> 32 if index >= 0 else None
            assert find_rule(packed.rows, pc) == wanted, hex(pc)


def different(count: int) -> list[int]:
    """So many rules."""
    return [word(Rule.CFA_RSP, number % 4096, number // 4096) for number in range(1, count + 1)]


@pytest.mark.parametrize("rules", [1, 2, 64, 65, 127, 128, 800, 4095, 4096])
def test_rules_take_one_slot_or_two_as_they_are_common(rules: int) -> None:
    chance = random.Random(rules)
    known = different(rules)
    few = known[:10]
    pc, rows = 70_000, []
    for number in range(2 * rules + 100):
        rule = known[number] if number < rules else chance.choice(few)
        if not rows or rows[-1][1] != rule:
            rows.append((pc, rule))
        pc += chance.choice((1, 1, 2, 5, 30, 900, 3_000))
    packed = pack_rows(make(rows))
    check(make(rows), packed)
    assert packed.row_count == len(rows)
    assert (packed.base, packed.segments, packed.notes) == (0x400000, SEGMENTS, {})


def test_a_row_that_changes_nothing_is_left_out() -> None:
    one, other = different(2)
    rows = make([(10, one), (20, one), (5_000, one), (5_010, other), (200_000, other)])
    packed = pack_rows(rows)
    assert packed.row_count == 2
    assert find_rule(packed.rows, 9) is None
    for pc, rule in ((10, one), (25, one), (5_009, one), (5_010, other), (1 << 31, other)):
        assert find_rule(packed.rows, pc) == rule >> 32


def test_far_between_rows_cost_little_and_dense_ones_are_found() -> None:
    one, other = different(2)
    far = make([(0x1234, one), (0xEFFF_0001, other)])
    check(far, pack_rows(far))
    assert len(pack_rows(far).rows) < 8 * 0xF000 + 500  # of each 64 KiB without rows 8 bytes

    dense = make((3_000 + pc, (one, other)[pc % 2]) for pc in range(70_000))
    check(dense, pack_rows(dense), 7)
    assert len(pack_rows(dense).rows) < 2 * 70_000 + 500


def test_what_no_block_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    known = different(4_000)
    dense = make((pc, known[pc % 4_000]) for pc in range(1 << 16))
    with pytest.raises(NoRowsError, match="rows in 65536 bytes"):
        pack_rows(dense)
    monkeypatch.setattr(packing, "MAX_BLOCK_BYTES", 100)
    with pytest.raises(NoRowsError, match="at most 100"):
        pack_rows(make((pc, known[pc]) for pc in range(20)))


def test_rules_beyond_the_table_are_unsupported_and_counted() -> None:
    known = different(5_000)
    rows = make((40 * number, rule) for number, rule in enumerate([*known, *known[:4_000]]))
    packed = pack_rows(rows)
    assert packed.notes == {"rules beyond the table": 5_000 - 4_095}
    found = [find_rule(packed.rows, 40 * number) for number in range(5_000)]
    assert found[:4_000] == [rule >> 32 for rule in known[:4_000]]
    assert found.count(UNSUPPORTED >> 32) == 5_000 - 4_095


def test_where_signal_handlers_return_to_is_known_without_a_search() -> None:
    rows = [(16 * number, (GAP, SIGNAL)[number % 2]) for number in range(1, 50)]
    assert pack_rows(make(rows)).signals == tuple(range(16, 16 * 32, 32))
    assert pack_rows(make([(16, different(1)[0])])).signals == ()


def test_nothing_is_packed_into_nothing() -> None:
    packed = pack_rows(make([])._replace(frame_pointers=True))
    assert packed == PackedRows(b"", 0, 0x400000, SEGMENTS, {}, True)


def test_real_files_are_found_again_in_a_third_of_the_bytes(
    libc: Path, rows_of: Callable[[Path], Any], tmp_path: Path
) -> None:
    cplusplus = next(Path("/usr/lib").glob("*/libstdc++.so.6"))
    program = tmp_path / "python"
    shutil.copy(Path(sys.executable).resolve(), program)
    for path, step in ((libc, 3), (cplusplus, 7), (program, 7)):
        rows = rows_of(path).rows
        packed = pack_rows(rows)
        check(rows, packed, step)
        assert len(packed.rows) % ROW_CELL_BYTES == 0
        assert len(rows.rows) < 8_000 or len(packed.rows) < 0.34 * len(rows.rows), path
