"""The agent's own cost over an interval, as it is sent with every batch."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from msgspec import field, structs

from node_agent.collectors.cpu import Totals
from node_agent.kernel.cpus import online_cpus
from node_agent.overhead.calibration import Calibration, calibrate_interrupt_ns
from node_agent.overhead.errors import OverheadError
from node_agent.overhead.usage import MemoryAccount, ShipperUsage, own_cpu_ns
from wire.schema import Overhead

REPORT_AGE_NS = 120 * 10**9  # older than any report of a shipper that is still read
_FIRST_CHARGED = (5, 11)  # from this kernel on the memory of BPF maps is charged to the group

_latest: Overhead | None = None
_sampling: dict[str, Any] = {}  # the fields that AgentOverhead adds


class AgentOverhead(Overhead, frozen=True):
    """What the agent cost over its last interval, and what it gave up for that (definitions:
    docs/overhead.md). Percents are of the host."""

    user_cpu_percent: float = 0.0  # the three add up to cpu_percent
    kernel_cpu_percent: float = 0.0
    interrupt_cpu_percent: float = 0.0
    python_cpu_percent: float = 0.0  # of user and kernel: Python frames
    sampler_memory_bytes: int = 0  # with map_bytes and shipper_memory_bytes it is memory_bytes
    asked_rate_hz: int = 0  # the configured rate, or that of a profile on demand
    effective_rate_hz: float = 0.0  # sampling interrupts a second and CPU
    lost: dict[str, int] = field(default_factory=dict)  # samples of the interval, by reason
    shed: list[str] = field(default_factory=list)  # what is given up
    shed_since: float | None = None  # Unix time


class PartTime(Protocol):
    """CPU time of a part of the sampler since its start (node_agent.cpython.spent.PythonTime)."""

    ns: int


class Metered(Protocol):
    """What a collector tells about its cost."""

    def totals(self) -> Totals: ...

    def map_bytes(self) -> int: ...


class Meter:
    """Measures from one call of `measure` to the next; the first reaches back to the start.
    `python` is what Python frames take in the sampler."""

    def __init__(
        self, collector: Metered, calibration: Calibration, python: PartTime | None = None
    ) -> None:
        self._python = python
        self._python_ns = 0
        self._collector = collector
        self._calibration = calibration
        self._account = MemoryAccount()
        self._maps_charged = maps_are_charged(os.uname().release)
        self._totals = Totals(0, 0, 0)
        self._own_cpu_ns = own_cpu_ns()
        self._shipper: ShipperUsage | None = None

    @property
    def calibration(self) -> Calibration:
        """What one sampling interrupt costs on this host, as last measured."""
        return self._calibration

    def recalibrate(self) -> None:
        """Measure that again. Raises PerfEventError; the old figure then stays."""
        self._calibration = calibrate_interrupt_ns()

    def measure(self, shipper: ShipperUsage | None, duration_ns: int, samples: int) -> Overhead:
        """The cost of the `duration_ns` that ended now.

        Call it right after `take_interval`. `shipper` is its newest report, None if there is none.
        Interrupts are those that the collector counted, idle CPUs included, and at least
        `samples`. Also becomes the answer of `get_overhead`.
        """
        global _latest  # noqa: PLW0603 - one agent a process
        totals, own = self._collector.totals(), own_cpu_ns()
        sampler_ns = own - self._own_cpu_ns
        kernel_ns = totals.kernel_ns - self._totals.kernel_ns
        interrupts = max(totals.interrupts - self._totals.interrupts, samples)
        interrupt_ns = interrupts * self._calibration.ns_per_sample
        # Another user's words: no more than all CPUs have done since an earlier report.
        most_ns = len(online_cpus()) * (max(duration_ns, 0) + REPORT_AGE_NS)
        shipper_ns = min(self._shipper_cpu_ns(shipper), most_ns)
        python_kernel_ns = totals.python_ns - self._totals.python_ns
        python_ns = self._python.ns if self._python is not None else 0
        python_sampler_ns, self._python_ns = python_ns - self._python_ns, python_ns
        self._totals, self._own_cpu_ns = totals, own

        user_ns = sampler_ns + shipper_ns
        duration_ns = max(duration_ns, 1)
        map_bytes = self._collector.map_bytes()
        memory = self._account.read()
        memory_bytes = memory.total_bytes + (shipper.memory_bytes if shipper else 0)
        if not (memory.has_kernel and self._maps_charged):
            memory_bytes += map_bytes
        total_ns = user_ns + kernel_ns + interrupt_ns
        _latest = Overhead(
            sampler_cpu_ns=sampler_ns,
            shipper_cpu_ns=shipper_ns,
            kernel_cpu_ns=kernel_ns,
            interrupt_cpu_ns=interrupt_ns,
            memory_bytes=memory_bytes,
            map_bytes=map_bytes,
            cpu_percent=100 * total_ns / (len(online_cpus()) * duration_ns),
            user_percent_of_core=100 * user_ns / duration_ns,
            event_latency_us=(kernel_ns + interrupt_ns) / max(interrupts, 1) / 1000,
            interrupt_ns=self._calibration.ns_per_sample,
            interrupt_spread_ns=self._calibration.spread_ns,
            shipper_memory_bytes=shipper.memory_bytes if shipper else 0,
            python_sampler_cpu_ns=python_sampler_ns,
            python_kernel_cpu_ns=python_kernel_ns,
        )
        return _latest

    def _shipper_cpu_ns(self, shipper: ShipperUsage | None) -> int:
        """What the shipper used since its last report; a new shipper counts from its start."""
        previous, self._shipper = self._shipper, shipper or self._shipper
        if shipper is None:
            return 0
        if previous is None or previous.pid != shipper.pid:
            # The first report after our own start may cover hours: it is only the starting point.
            return shipper.cpu_ns if previous is not None else 0
        return max(shipper.cpu_ns - previous.cpu_ns, 0)


def maps_are_charged(release: str) -> bool:
    """Whether a kernel of this release charges BPF maps to their creator's control group."""
    major, minor = (int(part) for part in release.split("-")[0].split(".")[:2])
    return (major, minor) >= _FIRST_CHARGED


def note_sampling(
    asked_rate_hz: int,
    effective_rate_hz: float,
    lost: Mapping[str, int],
    shed: Sequence[str],
    shed_since: float | None,
) -> None:
    """How the interval that was measured last was sampled, for `get_overhead`."""
    _sampling.update(
        asked_rate_hz=asked_rate_hz,
        effective_rate_hz=effective_rate_hz,
        lost=dict(lost),
        shed=list(shed),
        shed_since=shed_since,
    )


def get_overhead() -> AgentOverhead:
    """What the agent in this process cost over the last interval.

    Raises OverheadError before the first interval has ended.
    """
    if _latest is None:
        raise OverheadError(
            "The overhead is not known yet: no interval has ended in this process",
            "Ask a running agent: `flamefleet-agent status --json`.",
        )
    user_ns = _latest.sampler_cpu_ns + _latest.shipper_cpu_ns
    whole_ns = max(user_ns + _latest.kernel_cpu_ns + _latest.interrupt_cpu_ns, 1)
    percent = _latest.cpu_percent / whole_ns
    python_ns = _latest.python_sampler_cpu_ns + _latest.python_kernel_cpu_ns
    others_bytes = _latest.map_bytes + _latest.shipper_memory_bytes
    return AgentOverhead(
        **structs.asdict(_latest),
        user_cpu_percent=percent * user_ns,
        kernel_cpu_percent=percent * _latest.kernel_cpu_ns,
        interrupt_cpu_percent=percent * _latest.interrupt_cpu_ns,
        python_cpu_percent=percent * python_ns,
        sampler_memory_bytes=max(_latest.memory_bytes - others_bytes, 0),
        **_sampling,
    )
