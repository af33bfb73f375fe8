"""Loads, attaches and counts where it is run; what it found is one line of JSON.

usage: probe.py SAMPLES NAME=COMMAND...
Each COMMAND is started; intervals of half a second are taken until the thread NAME of each has so
many samples, for a minute at most. Judging is for the test outside.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from node_agent.collectors.cpu import CpuCollector, Interval, RawStack

INTERVAL_S = 0.5
LIMIT_S = 300.0


def read_comm(tgid: int) -> str | None:
    try:
        return Path(f"/proc/{tgid}/comm").read_text().strip()
    except OSError:
        return None


def describe(
    name: str, intervals: list[Interval], stacks: dict[int, RawStack]
) -> dict[str, object]:
    rows = [
        (stacks.get(key.stack_key), count)
        for interval in intervals
        for key, count in interval.counts.items()
        if key.thread_name == name
    ]
    known = [stack for stack, _ in rows if stack is not None]
    return {
        "samples": sum(count for _, count in rows),
        "missing_stacks": len(rows) - len(known),
        "tgids": sorted({stack.process.tgid for stack in known}),
        "user_depth": max((len(stack.user_ips) for stack in known), default=0),
        "kernel_depth": max((len(stack.kernel_ips) for stack in known), default=0),
        "kernel_addresses": all(ip >> 47 for stack in known for ip in stack.kernel_ips),
        "start_ns": min((stack.process.start_ns for stack in known), default=0),
    }


def main() -> None:
    wanted = int(sys.argv[1])
    programs = dict(argument.split("=", 1) for argument in sys.argv[2:])
    mode = os.environ.get("MODE", "core")
    collector = CpuCollector(99, 100_000, interval_s=10, mode=mode, python=mode == "core")
    null = subprocess.DEVNULL
    collector.start()  # before the load: the compiler of mode bcc is nicer than that
    children = [subprocess.Popen(c.split(), stdout=null, stderr=null) for c in programs.values()]
    stacks: dict[int, RawStack] = {}
    intervals: list[Interval] = []
    seen: Counter[str] = Counter()
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end and any(seen[name] < wanted for name in programs):
        time.sleep(INTERVAL_S)
        intervals.append(collector.take_interval())
        stacks |= {stack.stack_key: stack for stack in collector.poll()}
        for key, count in intervals[-1].counts.items():
            seen[key.thread_name] += count
    map_bytes = collector.map_bytes()
    tgids = {key.tgid for interval in intervals for key in interval.counts}
    in_proc = {tgid: comm for tgid in tgids if (comm := read_comm(tgid)) is not None}
    collector.stop()
    for child in children:
        child.kill()
        child.wait()
    lost: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    for interval in intervals:
        lost.update(interval.lost)
        skipped.update(interval.skipped)
    found = {
        "release": os.uname().release,
        "mode": collector.mode,
        "mode_reasons": collector.mode_reasons,
        "programs": {name: describe(name, intervals, stacks) for name in programs},
        "samples": sum(interval.samples for interval in intervals),
        "interrupts": sum(interval.interrupts for interval in intervals),
        "kernel_ns": sum(interval.kernel_ns for interval in intervals),
        "lost": lost,
        "skipped": skipped,
        "map_bytes": map_bytes,
        "in_proc": in_proc,
        "not_in_proc": sorted(tgids - set(in_proc)),
    }
    print(json.dumps(found))


main()
