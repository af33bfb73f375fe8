"""What one sampling interrupt costs on this host, apart from the BPF program on it.

The timer interrupt and the perf code around a sample cost more than the program, and no counter
shows them. So measure: the same work with and without a fast sampling event, in short slices by
turns, and take the median of the pairs. A slice that was preempted or hit by another load makes an
outlier, which the median ignores.
"""

import os
import time
from typing import NamedTuple

from node_agent.kernel.perf_event import disable, enable, open_cpu_clock

_RATE_HZ = 8000  # some 16 interrupts a slice: well above the noise, and below any throttling
_SLICE_NS = 2_000_000
_PAIRS = 101  # 0.4 s in all
_PERIOD_NS = 1_000_000_000 // _RATE_HZ
_RATE_LIMIT = "/proc/sys/kernel/perf_event_max_sample_rate"

# Taken where measuring gives nothing usable: what a virtual machine under load showed, which is
# more than any quiet machine needs.
ASSUMED_NS = 14_000


class Calibration(NamedTuple):
    """Nanoseconds that one sampling interrupt takes from the work it interrupts."""

    ns_per_sample: int
    spread_ns: int  # half the distance between the quartiles of the pairs
    is_measured: bool = True


def calibrate_interrupt_ns() -> Calibration:
    """Measure on the calling thread; takes half a second of one CPU at most.

    Falls back to ASSUMED_NS where the rate is limited too far or the noise hides the cost. Raises
    PerfEventError where no event can be opened: nothing can be sampled then either.
    """
    if _rate_limit() < _RATE_HZ:
        return Calibration(ASSUMED_NS, ASSUMED_NS, is_measured=False)
    fd = open_cpu_clock(_RATE_HZ, cpu=-1, pid=0)
    try:
        work = _work_of(_SLICE_NS)
        pairs = []
        for turn in range(_PAIRS):
            # by turns first and second, so that a trend (warming up, a slowing clock) cancels out
            if turn % 2:
                without, with_event = _time(work), _time_sampled(work, fd)
            else:
                with_event, without = _time_sampled(work, fd), _time(work)
            pairs.append((without, with_event))
    finally:
        os.close(fd)
    return summarize(pairs)


def summarize(pairs: list[tuple[int, int]]) -> Calibration:
    """The cost of an interrupt from pairs of (ns without, ns with the event) of the same work."""
    costs = sorted(
        (sampled - without) / (sampled // _PERIOD_NS)
        for without, sampled in pairs
        if sampled >= _PERIOD_NS
    )
    quarter, middle = len(costs) // 4, len(costs) // 2
    if quarter == 0 or costs[middle] <= 0:
        return Calibration(ASSUMED_NS, ASSUMED_NS, is_measured=False)
    return Calibration(round(costs[middle]), round((costs[-1 - quarter] - costs[quarter]) / 2))


def _rate_limit() -> int:
    try:
        with open(_RATE_LIMIT) as file:  # noqa: PTH123 - one read, no path arithmetic
            return int(file.read())
    except (OSError, ValueError):
        return 0


def _work_of(duration_ns: int) -> range:
    """A range whose sum takes about that long; summing runs in C and allocates next to nothing."""
    size = 1000
    while True:
        taken = min(_time(range(size)) for _ in range(3))
        if taken >= duration_ns // 8:
            return range(size * duration_ns // taken)
        size *= 4


def _time(work: range) -> int:
    started = time.perf_counter_ns()
    sum(work)
    return time.perf_counter_ns() - started


def _time_sampled(work: range, fd: int) -> int:
    enable(fd)
    taken = _time(work)
    disable(fd)
    return taken
