"""What one sampling interrupt costs on this host, apart from the BPF program on it.

The timer interrupt and the perf code around a sample cost more than the program, and no counter
shows them. So measure: the same work with and without a fast sampling event, in short slices by
turns, and take the median of the pairs. Pairs in which another process took the CPU are left out;
what other noise remains makes outliers, which the median ignores.
"""

import os
import time
from typing import NamedTuple

from node_agent.kernel.perf_event import disable, enable, open_cpu_clock

_RATE_HZ = 8000  # some 8 interrupts a slice: well above the noise, and below any throttling
_SLICE_NS = 1_000_000
_PAIRS = 151  # 0.3 s on a quiet machine
_LIMIT_NS = 700_000_000  # on a busy one, with fewer pairs
_MIN_PAIRS = 8
_PREEMPTED_NS = 30_000  # more wall time than CPU time: another process ran meanwhile
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
    """Measure on the calling thread; takes 0.3 to 0.8 s of one CPU.

    Falls back to ASSUMED_NS where the rate is limited too far or the noise hides the cost. Raises
    PerfEventError where no event can be opened: nothing can be sampled then either.
    """
    if _rate_limit() < _RATE_HZ:
        return Calibration(ASSUMED_NS, ASSUMED_NS, is_measured=False)
    fd = open_cpu_clock(_RATE_HZ, cpu=-1, pid=0)
    try:
        work = _work_of(_SLICE_NS)
        pairs: list[tuple[int, int]] = []
        end_ns = time.monotonic_ns() + _LIMIT_NS
        turn = 0
        while len(pairs) < _PAIRS and time.monotonic_ns() < end_ns:
            # by turns first and second, so that a trend (warming up, a slowing clock) cancels out
            turn += 1
            if turn % 2:
                without, with_event = _time(work), _time_sampled(work, fd)
            else:
                with_event, without = _time_sampled(work, fd), _time(work)
            if without is not None and with_event is not None:
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
    if len(costs) < _MIN_PAIRS or costs[middle] <= 0:
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
        times = [taken for _ in range(5) if (taken := _time(range(size))) is not None]
        if times and min(times) >= duration_ns // 8:
            return range(size * duration_ns // min(times))
        if times:
            size *= 4


def _time(work: range) -> int | None:
    """Nanoseconds of wall time, None if the thread did not have the CPU all the time.

    Not CPU time itself: kernels that account interrupts apart (CONFIG_IRQ_TIME_ACCOUNTING) leave
    out of it exactly what is to be measured.
    """
    started_cpu, started = time.thread_time_ns(), time.perf_counter_ns()
    sum(work)
    taken = time.perf_counter_ns() - started
    on_cpu = time.thread_time_ns() - started_cpu
    accounted_apart = taken // 4  # interrupts may be missing in CPU time
    return taken if taken - on_cpu < max(_PREEMPTED_NS, accounted_apart) else None


def _time_sampled(work: range, fd: int) -> int | None:
    enable(fd)
    taken = _time(work)
    disable(fd)
    return taken
