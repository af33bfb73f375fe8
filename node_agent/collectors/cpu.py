"""CPU samples of every process, by the kernel program bpf/cpu.bpf.c."""

import ctypes
import time
from dataclasses import dataclass
from typing import NamedTuple

from node_agent.collectors.map_sizes import MapSizes, plan_map_sizes
from node_agent.collectors.stacks import (
    Decoder,
    Interval,
    ProcessKey,
    RawStack,
    SampleKey,
)
from node_agent.exclusions import ExcludeConfig
from node_agent.kernel.chain import load_program
from node_agent.kernel.cpus import online_cpus, possible_cpus
from node_agent.kernel.errors import KernelError, PerfEventError
from node_agent.kernel.exclusions import Exclusions
from node_agent.kernel.libbpf import OBJECTS, LoadedObject
from node_agent.kernel.maps import Control, CountMap, PerCpuCounters, accounted_bytes
from node_agent.kernel.namespaces import pid_namespace_setting
from node_agent.kernel.perf_event import CpuClock
from node_agent.kernel.program import Program
from node_agent.kernel.ring_buffer import RingBuffer
from node_agent.kernel.structs import (
    COUNTER_NAMES,
    CountersC,
    SampleKeyC,
    SettingsC,
    StackEventC,
)

__all__ = ["CpuCollector", "Interval", "ProcessKey", "RawStack", "SampleKey", "Totals"]

HEARTBEAT_LIMIT_S = 60.0
_PROGRAM = "ff_sample_cpu"
_EVEN, _ODD, _STACKS, _CONTROL, _COUNTERS, _SCRATCH, _EXCLUSIONS = _MAPS = (
    *("ff_counts_even", "ff_counts_odd", "ff_stacks", "ff_control", "ff_counters", "ff_scratch"),
    "ff_exclusions",
)
_LOST = ("count_map_full", "stack_error", "ring_full")
_SKIPPED = ("idle", "foreign_namespace", "other_process", "excluded", "silent")
# Every interrupt ends in exactly one of these.
_OUTCOMES = ("samples", "count_map_full", "stack_error", *_SKIPPED)


class Totals(NamedTuple):
    """Since `start`, as of the last `take_interval`."""

    samples: int
    interrupts: int
    kernel_ns: int


@dataclass(slots=True)
class _Running:
    """What exists between `start` and `stop`."""

    loaded: LoadedObject
    clock: CpuClock
    count_maps: tuple[CountMap, CountMap]
    counters: PerCpuCounters
    control: Control
    ring: RingBuffer
    seen: dict[str, int]  # counters at the end of the last interval
    started_ns: int  # Unix time at which the interval began
    started_monotonic_ns: int

    def close(self) -> None:
        self.clock.stop()
        self.ring.close()
        self.control.close()
        self.loaded.close()


class CpuCollector:
    """Samples all online CPUs. Not for use by several threads.

    `max_samples` bounds the distinct samples held in one interval; `only_tgid` leaves out all
    other processes, `exclude` those that it names. `heartbeat_limit_s` is how long the kernel
    program goes on when neither `poll` nor `take_interval` is called. `mode` is how the program is
    loaded: "core", "bcc", or "auto" for the first of them that works.
    """

    def __init__(
        self,
        rate_hz: int,
        max_samples: int,
        interval_s: float,
        only_tgid: int | None = None,
        heartbeat_limit_s: float = HEARTBEAT_LIMIT_S,
        mode: str = "core",
        exclude: ExcludeConfig | None = None,
    ) -> None:
        self.mode = mode  # from `start` on: the one that worked
        self.mode_reasons: dict[str, str] = {}  # why better ones did not, by mode
        self._rate_hz = rate_hz
        self._settings = SettingsC(int(heartbeat_limit_s * 1e9), 0, only_tgid or 0)
        self._exclusions = Exclusions(exclude or ExcludeConfig())
        self._interval_s = interval_s
        self._max_samples = max_samples
        self._sizes = MapSizes(0, 0, 0)
        self._decoder = Decoder()
        self._running: _Running | None = None

    @property
    def rate_hz(self) -> int:
        return self._rate_hz

    def start(self) -> None:
        """Load the program and begin to sample. Raises KernelError, with nothing left loaded."""
        if self._running is not None:
            return
        self._settings.pid_namespace = pid_namespace_setting()
        self._exclusions.configure(self._settings)
        self._sizes = plan_map_sizes(
            self._rate_hz,
            len(possible_cpus()),
            self._interval_s,
            self._max_samples,
            ctypes.sizeof(SampleKeyC),
            ctypes.sizeof(StackEventC) + ctypes.sizeof(CountersC),
        )
        entries = self._sizes.count_entries
        program = Program(
            OBJECTS / "cpu.bpf.o",
            (_PROGRAM,),
            _MAPS,
            self._settings,
            {
                _EVEN: entries,
                _ODD: entries,
                _STACKS: self._sizes.ring_bytes,
                _EXCLUSIONS: self._exclusions.max_entries,
            },
        )
        self.mode, loaded, self.mode_reasons = load_program(program, self.mode)
        try:
            running = self._open_maps(loaded, entries)
        except BaseException:
            loaded.close()
            raise
        try:
            self._exclusions.enforce(loaded.maps[_EXCLUSIONS])
            running.control.beat()
            running.clock.start(online_cpus(), self._rate_hz)
        except BaseException:
            running.close()
            raise
        self._running = running

    def _open_maps(self, loaded: LoadedObject, entries: int) -> _Running:
        maps = loaded.maps
        key_bytes = ctypes.sizeof(SampleKeyC)
        return _Running(
            loaded,
            CpuClock(loaded.programs[_PROGRAM]),
            (
                CountMap(maps[_EVEN], key_bytes, entries),
                CountMap(maps[_ODD], key_bytes, entries),
            ),
            PerCpuCounters(maps[_COUNTERS], COUNTER_NAMES),
            Control(maps[_CONTROL]),
            RingBuffer(maps[_STACKS], self._sizes.ring_bytes),
            dict.fromkeys(COUNTER_NAMES, 0),
            time.time_ns(),
            time.monotonic_ns(),
        )

    def _held(self) -> _Running:
        if self._running is None:
            raise KernelError("The CPU collector is not running", "it was not started", "Start it.")
        return self._running

    def poll(self) -> list[RawStack]:
        """Stacks first seen since the last call; also the sign of life that the program wants.

        Call it about twice a second, while short-lived processes can still be read, and once
        between `take_interval` and the use of its counts: then every stack of the interval came,
        but for those counted as `ring_full`.
        """
        running = self._held()
        running.control.beat()
        return self._decoder.stacks(running.ring.read())

    def take_interval(self) -> Interval:
        """End the interval, begin the next one, and return the counts of the ended one."""
        running = self._held()
        running.control.beat()
        self._follow_cpus(running)
        self._exclusions.refresh()
        number = running.control.generation
        ended_ns, ended_monotonic_ns = time.time_ns(), time.monotonic_ns()
        running.control.next_generation()
        counts = self._decoder.counts(*running.count_maps[number & 1].drain())
        now = running.counters.read()
        grown = {name: now[name] - running.seen[name] for name in COUNTER_NAMES}
        interval = Interval(
            counts=counts,
            lost={name: grown[name] for name in _LOST if grown[name]},
            samples=sum(counts.values()),
            kernel_ns=grown["own_ns"],
            start_ns=running.started_ns,
            duration_ns=ended_monotonic_ns - running.started_monotonic_ns,
            skipped={name: grown[name] for name in _SKIPPED if grown[name]},
            interrupts=sum(grown[name] for name in _OUTCOMES),
            number=number,
        )
        running.seen = now
        running.started_ns, running.started_monotonic_ns = ended_ns, ended_monotonic_ns
        return interval

    def _follow_cpus(self, running: _Running) -> None:
        """A CPU that went away takes its event with it, and one that came has none yet."""
        online = online_cpus()
        if running.clock.cpus != frozenset(online):
            running.clock.stop()
            running.clock.start(online, self._rate_hz)

    def totals(self) -> Totals:
        seen = self._held().seen
        return Totals(seen["samples"], sum(seen[name] for name in _OUTCOMES), seen["own_ns"])

    @property
    def unresolved_exclusions(self) -> list[str]:
        """Exclusions that have no effect at present, in words."""
        return self._exclusions.unresolved

    def map_bytes(self) -> int:
        """Kernel memory of the maps: what the kernel accounts, or the estimate where that is more.

        Before 6.4 the kernel shows keys and values only, without the entries' heads and buckets.
        """
        fds = self._held().loaded.maps.values()
        return max(sum(accounted_bytes(fd) for fd in fds), self._sizes.total_bytes)

    def set_rate(self, rate_hz: int) -> None:
        """Sample at another rate from now on; the maps keep the size that they were made with.

        Raises PerfEventError when the kernel refuses the rate; the old one then goes on.
        """
        running = self._held()
        if rate_hz == self._rate_hz:
            return
        running.clock.stop()
        try:
            running.clock.start(online_cpus(), rate_hz)
        except PerfEventError:
            running.clock.start(online_cpus(), self._rate_hz)
            raise
        self._rate_hz = rate_hz

    def stop(self) -> None:
        """Detach and unload; what was not taken is gone."""
        running, self._running = self._running, None
        if running is not None:
            running.close()
