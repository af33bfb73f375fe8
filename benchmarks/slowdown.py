"""How much slower fixed work gets beside a profiler: the same program in turns with and without.

One process on each CPU does units of work and counts them; a slice is the units of all in SLICE_S.
A block has a slice of each profiler and two without, in another order each time, so that what moves
slowly (other load, clock speed) hits all alike. A block's value is the difference of the logarithms
of two slices; the interval is Student's over the blocks, which are taken to be independent. The two
slices without a profiler give the same figure for nothing at all: what is not clearly beyond that
was not seen.
"""

import math
import mmap
import os
import random
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.profilers import Profiler

SLICE_S = 4.0
SETTLE_S = 2.0  # after the start of a profiler
_NOTHING = ("none", "none again")
# Student's t, two-sided 95 %, by degrees of freedom; beyond them nearly the normal distribution's.
_T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13)
_UNITS = r"""
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
static int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
int main(int argc, char **argv) {
    int file = open(argv[1], O_RDWR), numbers[1024];
    volatile unsigned long *units = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    (void)argc;
    for (;; ++*units) {
        unsigned seed = 1;
        for (int i = 0; i < 1024; i++) numbers[i] = (int)(seed = seed * 1103515245 + 12345);
        qsort(numbers, 1024, sizeof(int), compare);
    }
}
"""


@dataclass
class Slowdown:
    """Percent by which the work got slower; `low` and `high` are the 95 % interval."""

    profiler: str
    rate_hz: int
    blocks: int
    percent: float
    low: float
    high: float


def measure_slowdown(
    profilers: list[Profiler], rate_hz: int, blocks: int, folder: Path
) -> list[Slowdown]:
    """One line for each profiler, and at last one for nothing."""
    logs: dict[str, list[float]] = {}
    draw = random.Random(1)
    by_name = {profiler.name: profiler for profiler in profilers}
    with _working(folder) as counters:
        for _ in range(blocks):
            order = [*_NOTHING, *by_name]
            draw.shuffle(order)
            for name in order:
                if name in by_name:
                    with by_name[name].start(rate_hz, folder):
                        units = _slice(counters)
                else:
                    units = _slice(counters)
                logs.setdefault(name, []).append(math.log(units))
    first, second = (logs[name] for name in _NOTHING)
    without = [(a + b) / 2 for a, b in zip(first, second, strict=True)]
    found = [
        _slowdown(name, rate_hz, [a - b for a, b in zip(without, logs[name], strict=True)])
        for name in by_name
    ]
    return [
        *found,
        _slowdown("nothing", rate_hz, [a - b for a, b in zip(first, second, strict=True)]),
    ]


def _slowdown(name: str, rate_hz: int, differences: list[float]) -> Slowdown:
    mean = statistics.fmean(differences)
    width = math.inf
    if len(differences) > 1:
        freedom = min(len(differences) - 1, len(_T95))
        error = statistics.stdev(differences) / math.sqrt(len(differences))
        width = _T95[freedom - 1] * error
    low, middle, high = (100 * math.expm1(value) for value in (mean - width, mean, mean + width))
    return Slowdown(name, rate_hz, len(differences), middle, low, high)


def _slice(counters: list[mmap.mmap]) -> float:
    """Units a second, of all processes."""
    time.sleep(SETTLE_S)
    before, start_s = _total(counters), time.monotonic()
    time.sleep(SLICE_S)
    after, end_s = _total(counters), time.monotonic()
    return (after - before) / (end_s - start_s)


def _total(counters: list[mmap.mmap]) -> int:
    return sum(int.from_bytes(counter[:8], "little") for counter in counters)


@contextmanager
def _working(folder: Path) -> Iterator[list[mmap.mmap]]:
    """The processes, one bound to each CPU; yields their counters."""
    (folder / "units.c").write_text(_UNITS)
    subprocess.run(["gcc", "-O2", "-o", "units", "units.c"], cwd=folder, check=True)
    processes, counters = [], []
    try:
        for cpu in os.sched_getaffinity(0):
            path = folder / f"units-{cpu}"
            path.write_bytes(bytes(4096))
            with path.open("r+b") as file:
                counters.append(mmap.mmap(file.fileno(), 4096))
            command = ["taskset", "-c", str(cpu), str(folder / "units"), str(path)]
            processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        yield counters
    finally:
        for process in processes:
            process.kill()
            process.wait()
        for counter in counters:
            counter.close()
