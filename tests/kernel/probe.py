"""Runs inside another kernel: load, attach, count; the findings are the last line, as JSON.

usage: probe.py SECONDS PROGRAM...
Each PROGRAM is started and has to show up in the samples; judging is for the test outside.
"""

import json
import os
import subprocess
import sys
import time

from node_agent.collectors.cpu import CpuCollector, RawStack


def main() -> None:
    seconds, programs = float(sys.argv[1]), sys.argv[2:]
    collector = CpuCollector(rate_hz=99, max_samples=100_000, interval_s=seconds)
    null = subprocess.DEVNULL
    children = [subprocess.Popen(p.split(), stdout=null, stderr=null) for p in programs]
    collector.start()
    stacks: dict[int, RawStack] = {}
    intervals = []
    for _ in range(2):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(0.5)
            stacks |= {stack.stack_key: stack for stack in collector.poll()}
        intervals.append(collector.take_interval())
        stacks |= {stack.stack_key: stack for stack in collector.poll()}
    map_bytes = collector.map_bytes()
    collector.stop()
    seen = []
    for program, child in zip(programs, children, strict=True):
        child.kill()
        child.wait()
        rows = [
            (stacks.get(key.stack_key), count)
            for interval in intervals
            for key, count in interval.counts.items()
            if key.tgid == child.pid
        ]
        known = [stack for stack, _ in rows if stack is not None]
        seen.append(
            {
                "program": program,
                "samples": sum(count for _, count in rows),
                "missing_stacks": len(rows) - len(known),
                "user_depth": max((len(stack.user_ips) for stack in known), default=0),
                "kernel_depth": max((len(stack.kernel_ips) for stack in known), default=0),
                "kernel_addresses": all(ip >> 47 for s in known for ip in s.kernel_ips),
                "start_ns": known[0].process.start_ns if known else 0,
                "thread_names": sorted({stack.thread_name for stack in known}),
            }
        )
    print(
        json.dumps(
            {
                "release": os.uname().release,
                "programs": seen,
                "samples": [interval.samples for interval in intervals],
                "interrupts": [interval.interrupts for interval in intervals],
                "kernel_ns": [interval.kernel_ns for interval in intervals],
                "lost": [interval.lost for interval in intervals],
                "skipped": [interval.skipped for interval in intervals],
                "map_bytes": map_bytes,
            }
        )
    )


main()
