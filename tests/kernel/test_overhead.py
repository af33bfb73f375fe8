"""The agent's own cost, with the real collector, interrupts and memory."""

import os
import subprocess
import time
from pathlib import Path

from node_agent.collectors.cpu import CpuCollector
from node_agent.overhead import Meter, calibrate_interrupt_ns

Busy = tuple[subprocess.Popen[str], list[int]]


def test_an_interrupt_costs_something_and_no_event_stays_open() -> None:
    before = {
        (fd.name, str(fd.readlink())) for fd in Path("/proc/self/fd").iterdir() if fd.exists()
    }

    calibration = calibrate_interrupt_ns()

    after = {(fd.name, str(fd.readlink())) for fd in Path("/proc/self/fd").iterdir() if fd.exists()}
    assert after == before
    # from a bare machine's half microsecond to an emulated one's hundred: all but nonsense
    assert 100 < calibration.ns_per_sample < 1_000_000


def test_the_whole_cost_is_measured(busy: Busy) -> None:
    collector = CpuCollector(199, 100_000, 10)
    collector.start()
    try:
        meter = Meter(collector, calibrate_interrupt_ns())
        collector.take_interval()
        meter.measure(None, 1, 0)
        for _ in range(4):
            time.sleep(0.5)
            collector.poll()
        interval = collector.take_interval()
        found = meter.measure(None, interval.duration_ns, interval.samples)
    finally:
        collector.stop()

    assert found.kernel_cpu_ns == interval.kernel_ns
    assert found.interrupt_cpu_ns >= interval.interrupts * 100
    assert found.sampler_cpu_ns > 0
    assert 0 < found.cpu_percent < 100
    assert 500_000 < found.map_bytes < 16 * 1024 * 1024
    assert found.memory_bytes > found.map_bytes
    assert found.memory_bytes < resident_bytes() + 2 * found.map_bytes


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
