"""Walks the stacks of walk.S where it is run; what it found is one line of JSON.

usage: walk.py PROGRAM ROWS
Each case is a process of PROGRAM, made known to the kernel program in its own way. Found of each:
how its stacks ended and their user addresses, with counts. Judging is for the test outside.
"""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from node_agent.collectors.cpu import CpuCollector
from node_agent.collectors.stacks import ProcessKey, end_of
from node_agent.kernel.structs import (
    MAPPING_FRAME_POINTER,
    MAPPING_NO_ROOM,
    MAPPING_NO_ROWS,
    MAPPING_PENDING,
    ROW_CELL_BYTES,
    ROW_CELLS_PER_SHARD,
    ROW_SIGNAL,
    ROW_UNSUPPORTED,
    UNWIND_MAPPING,
)
from node_agent.kernel.unwind_maps import ProcessRecord, UnwindMaps
from node_agent.unwind.packing import pack_rows
from node_agent.unwind.rows import Rows

RATE_HZ = 199
LIMIT_S = 300.0
WANTED = 5  # samples of each
FIRST_CELL = ROW_CELLS_PER_SHARD - 5  # the rows lie across two shards
FIRST_GAP_CELL = 3 * ROW_CELLS_PER_SHARD
_ROW = struct.Struct("=IhbB")
NEIGHBOURS = 700  # mappings on each side: their lists lie across shards too


class Case(NamedTuple):
    mode: str
    kind: int = 0  # of the mapping; 0: with rows
    first_cell: int = FIRST_CELL
    exec_ids_off: int | None = 0  # None: no record at all


CASES = {
    "rules": Case("r"),
    "plt": Case("p"),
    "deep": Case("d"),
    "too_deep": Case("t"),
    "signal": Case("s"),
    "signal_without_row": Case("s", 0, FIRST_GAP_CELL),
    "kernel": Case("k"),
    "unsupported": Case("u"),
    "fault": Case("f"),
    "frames_in_a_gap": Case("b"),
    "frames": Case("b", MAPPING_FRAME_POINTER),
    "frames_without_rows": Case("b", MAPPING_NO_ROWS),
    "no_frames_without_rows": Case("u", MAPPING_NO_ROWS),
    "no_room": Case("r", MAPPING_NO_ROOM),
    "pending": Case("r", MAPPING_PENDING),
    "unknown": Case("r", 0, 0, None),
    "another_program": Case("r", 0, FIRST_CELL, 1),
    "fork": Case("c"),
}


def make_known(
    maps: UnwindMaps, number: int, case: Case, process: ProcessKey, cell_count: int
) -> None:
    if case.exec_ids_off is None:
        return
    lines = Path(f"/proc/{process.tgid}/maps").read_text().splitlines()
    code = next(line for line in lines if "/walk" in line and " r-xp " in line)
    start, end = (int(word, 16) for word in code.split()[0].split("-"))
    place = (case.kind, 0) if case.kind else (case.first_cell, cell_count)
    # neighbours below and above, that no address is in
    below = [(number * 8, number * 8 + 4, 0, 0, 0) for number in range(NEIGHBOURS)]
    above = [(end + 99 + number, end + 100 + number, 0, 0, 0) for number in range(NEIGHBOURS)]
    mappings = [*below, (start, end, start, *place), *above]
    first = number * len(mappings)
    maps.mappings.write(first, b"".join(UNWIND_MAPPING.pack(*mapping) for mapping in mappings))
    exec_id = process.exec_id + case.exec_ids_off
    record = ProcessRecord(process.start_ns, exec_id, first, len(mappings))
    assert maps.put_process(process.tgid, record)
    assert maps.process(process.tgid) == record


def without_signal(rows: bytes) -> bytes:
    found = _ROW.iter_unpack(rows)
    return b"".join(
        _ROW.pack(*place, ROW_UNSUPPORTED if rule == ROW_SIGNAL else rule) for *place, rule in found
    )


def packed(rows: bytes) -> bytes:
    return pack_rows(Rows(rows, 0, (), {})).rows


def main() -> None:
    program, rows = sys.argv[1], Path(sys.argv[2]).read_bytes()
    collector = CpuCollector(RATE_HZ, 100_000, 10)
    collector.start()
    children = {
        name: subprocess.Popen([program, case.mode], start_new_session=True)
        for name, case in CASES.items()
    }
    try:
        answer = walk_all(collector, children, rows)
    finally:
        collector.stop()
        for child in children.values():
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    print(json.dumps(answer))


def walk_all(
    collector: CpuCollector, children: dict[str, subprocess.Popen[bytes]], rows: bytes
) -> dict[str, object]:
    maps = collector.unwind_maps
    assert maps is not None
    block = packed(rows)
    cell_count = len(block) // ROW_CELL_BYTES
    assert cell_count > 5
    maps.rows.write(FIRST_CELL, block)
    maps.rows.write(FIRST_GAP_CELL, packed(without_signal(rows)))
    assert maps.rows.read(FIRST_CELL, cell_count) == block
    names = {child.pid: name for name, child in children.items()}
    end = time.monotonic() + LIMIT_S
    known: set[str] = set()
    while len(known) < len(CASES) and time.monotonic() < end:
        time.sleep(0.2)
        for stack in collector.poll():
            name = names.get(stack.process.tgid)
            # In user space: while it still executes the program it has its thread's name already,
            # but not yet its mappings and its number of that exec.
            runs = stack.thread_name == "walk" and not stack.kernel_ips
            if runs and name is not None and name not in known:
                number = list(CASES).index(name)
                make_known(maps, number, CASES[name], stack.process, cell_count)
                known.add(name)
    collector.take_interval()
    # some of these belong to the interval that runs now
    stacks = {(s.stack_key, s.end): s for s in collector.poll()}

    # of the case "fork" only the child counts, which nobody made known
    parent = children["fork"].pid
    forked = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    names[int(forked)] = names.pop(parent)
    found: dict[str, Counter[tuple[str, tuple[int, ...], bool]]] = {
        name: Counter() for name in CASES
    }
    kernel_ns = samples = 0
    while time.monotonic() < end and min(c.total() for c in found.values()) < WANTED:
        time.sleep(0.5)
        stacks |= {(s.stack_key, s.end): s for s in collector.poll()}
        interval = collector.take_interval()
        stacks |= {(s.stack_key, s.end): s for s in collector.poll()}
        kernel_ns, samples = kernel_ns + interval.kernel_ns, samples + interval.samples
        for key, count in interval.counts.items():
            name = names.get(key.tgid)
            if name is not None:
                stack = stacks[key.stack_key, end_of(key.flags)]
                found[name][stack.end.name, stack.user_ips, bool(stack.kernel_ips)] += count
    map_bytes, shard_bytes = collector.map_bytes(), maps.memory_bytes()
    maps.clear()
    assert maps.tgids() == []
    return {
        "release": os.uname().release,
        "cases": {
            name: [[*row, count] for row, count in rows.items()] for name, rows in found.items()
        },
        "ns_a_sample": kernel_ns // max(samples, 1),
        "map_bytes": map_bytes,
        "shard_bytes": shard_bytes,
    }


main()
