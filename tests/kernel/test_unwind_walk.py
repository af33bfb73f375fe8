"""User stacks walked by rows, on this machine's kernel; other kernels: test_other_kernels.py."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from node_agent.collectors.cpu import CpuCollector
from node_agent.kernel.structs import (
    MAX_KNOWN_PROCESSES,
    MAX_ROW_SHARDS,
    ROW_CELL_BYTES,
    ROW_CELLS_PER_SHARD,
)
from node_agent.kernel.unwind_maps import ProcessRecord

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def walked(walk_program: Any) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, HERE / "walk.py", walk_program.path, walk_program.rows],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(HERE.parents[1])},
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_kind_of_frame_is_walked_and_every_end_is_told(
    walk_program: Any, walked: dict[str, Any]
) -> None:
    walk_program.judge(walked)


def test_the_memory_of_shards_is_counted(walked: dict[str, Any]) -> None:
    # the two shards that rows lie across and a third; mappings: 18 lists of 1,401 entries
    rows, mappings = 3 * ROW_CELLS_PER_SHARD * ROW_CELL_BYTES, 18 * 1401 * 32
    assert rows + mappings < walked["shard_bytes"] < rows + mappings + 250_000
    assert walked["map_bytes"] > walked["shard_bytes"] + 500_000


def test_maps_refuse_what_does_not_fit_and_give_memory_back() -> None:
    collector = CpuCollector(19, 1000, 10)
    collector.start()
    try:
        maps = collector.unwind_maps
        assert maps is not None
        cells = MAX_ROW_SHARDS * ROW_CELLS_PER_SHARD
        empty_bytes = collector.map_bytes()
        with pytest.raises(ValueError, match="ff_rows"):
            maps.rows.write(cells - 1, bytes(32))
        with pytest.raises(ValueError, match="ff_rows"):
            maps.rows.write(0, bytes(7))
        last = bytes(range(16))
        maps.rows.write(cells - 1, last)
        assert maps.rows.read(cells - 2, 2) == bytes(16) + last
        assert collector.map_bytes() >= empty_bytes + ROW_CELLS_PER_SHARD * ROW_CELL_BYTES

        maps.rows.drop(MAX_ROW_SHARDS - 1)
        maps.rows.drop(0)
        assert maps.rows.read(cells - 1, 1) == bytes(16)
        assert collector.map_bytes() == empty_bytes

        most = MAX_KNOWN_PROCESSES
        fits = [maps.put_process(tgid, ProcessRecord(1, 2, 3, 4)) for tgid in range(1, most + 2)]
        assert fits == [True] * most + [False]
        assert maps.put_process(most, ProcessRecord(5, 6, 7, 8))
        assert maps.process(most) == ProcessRecord(5, 6, 7, 8)
        maps.drop_process(most)
        maps.drop_process(most)
        assert maps.process(most) is None
        assert len(maps.tgids()) == most - 1
        maps.clear()
        assert maps.tgids() == []
    finally:
        collector.stop()


def test_without_unwinding_nothing_is_known_and_nothing_costs() -> None:
    collector = CpuCollector(19, 1000, 10, unwind=False)
    collector.start()
    try:
        assert collector.unwind_maps is None
    finally:
        collector.stop()
