"""CPU samples of every process, by the kernel program bpf/cpu.bpf.c."""

import time
from collections.abc import Iterator
from itertools import chain

from node_agent.collectors.beginning import Beginning
from node_agent.collectors.inherited import Inheritance
from node_agent.collectors.running import STACKS, Running
from node_agent.collectors.stacks import (
    Decoder,
    Interval,
    ProcessKey,
    RawStack,
    SampleKey,
    Totals,
)
from node_agent.cpython.maps import PythonMaps
from node_agent.exclusions import ExcludeConfig
from node_agent.kernel.cpus import online_cpus
from node_agent.kernel.descriptor_store import DescriptorStore
from node_agent.kernel.errors import KernelError, PerfEventError
from node_agent.kernel.exclusions import Exclusions
from node_agent.kernel.maps import BookedInterval, accounted_bytes
from node_agent.kernel.structs import COUNTER_NAMES, GIVEN_UP_PYTHON, SettingsC
from node_agent.kernel.unwind_maps import UnwindMaps

__all__ = ["CpuCollector", "Interval", "ProcessKey", "RawStack", "SampleKey", "Totals"]

HEARTBEAT_LIMIT_S = 60.0
_LOST = ("count_map_full", "stack_error", "ring_full")
_SKIPPED = ("idle", "foreign_namespace", "other_process", "excluded", "silent")
# Every interrupt ends in exactly one of these, or is a sample.
_WITHOUT_SAMPLE = ("count_map_full", "stack_error", *_SKIPPED)


class CpuCollector:
    """Samples all online CPUs. Not for use by several threads.

    `max_samples` bounds the distinct samples held in one interval; `only_tgid` leaves out all
    other processes, `exclude` those that it names. `heartbeat_limit_s` is how long the kernel
    program goes on when neither `poll` nor `take_interval` is called. `mode` is how the program is
    loaded: "core", "bcc", or "auto" for the first of them that works. With a `store` the kernel
    goes on sampling after `stop`, and the next collector that is made alike takes over from there.

    With `unwind` user stacks are walked by what is written into `unwind_maps`; without, and in mode
    "bcc", by frame pointers. `python` adds the frames of Python programs.
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
        store: DescriptorStore | None = None,
        unwind: bool = True,
        python: bool = False,
    ) -> None:
        self.mode = mode  # from `start` on: the one that worked
        self.mode_reasons: dict[str, str] = {}  # why better ones did not, by mode
        self._rate_hz = rate_hz
        self._settings = SettingsC(int(heartbeat_limit_s * 1e9), 0, only_tgid or 0)
        self._settings.unwind, self._settings.python = unwind, python
        self._exclusions = Exclusions(exclude or ExcludeConfig())
        self._interval_s = interval_s
        self._max_samples = max_samples
        self._decoder = Decoder()
        self._first = 0  # the oldest interval whose stacks are of use
        self._running: Running | None = None
        self._map_bytes: int | None = None  # of what `_running` loaded, once it was asked for
        self._inheritance = Inheritance(self._decoder)
        self._beginning = Beginning(
            self._settings, self._exclusions, self._inheritance, store, mode, rate_hz
        )
        self.resumed_s: float | None = None  # how old the interval was that `start` went on with

    @property
    def rate_hz(self) -> int:
        """What is sampled at: as asked for, as set since, or as the process before this one had it
        set."""
        return self._rate_hz

    def start(self) -> None:
        """Load the program and begin to sample. Raises KernelError, with nothing left loaded."""
        if self._running is not None:
            return
        beginning = self._beginning
        self._map_bytes = None
        self._running = beginning.begin(self._rate_hz, self._interval_s, self._max_samples)
        self.mode, self.mode_reasons = beginning.mode, beginning.mode_reasons
        self._rate_hz, self.resumed_s = beginning.rate_hz, beginning.resumed_s
        beginning.keep(self._running, self._rate_hz)

    def _held(self) -> Running:
        if self._running is None:
            raise KernelError("The CPU collector is not running", "it was not started", "Start it.")
        return self._running

    def poll(self, last: int | None = None) -> list[RawStack]:
        """Stacks first seen since the last call; also the sign of life that the program wants.

        Call it soon after a call by `call_fd`, while short-lived processes can still be read, every
        few seconds anyway, and once between `take_interval` and the use of its counts: then every
        stack of the interval came, but for those counted as `ring_full`. With `last`, stacks of
        intervals after that number are left for the next call.
        """
        return list(self.stacks(last))

    def stacks(self, last: int | None = None) -> Iterator[RawStack]:
        """The same one by one, to be taken to the end before anything else is asked for."""
        running = self._held()
        running.control.beat()
        inherited = self._inheritance.stacks(running.control.generation)
        return chain(inherited, self._decoder.stacks(running.ring.read(), last, self._first))

    def take_interval(self) -> Interval:
        """End the interval, begin the next one, and return the counts of the ended one."""
        running = self._held()
        running.control.beat()
        self._follow_cpus(running)
        self._exclusions.refresh()
        number, began = running.control.generation, running.interval
        ended_ns, ended_monotonic_ns = time.time_ns(), time.monotonic_ns()
        running.control.next_generation()
        now = running.counters.read()  # before anything that takes time: both are of one interval
        counts = self._decoder.counts(*running.count_maps[number & 1].drain())
        for key, count in self._decoder.counts(*running.leftover).items():
            counts[key] = counts.get(key, 0) + count
        running.leftover = (b"", b"")
        # Not by the counter: while the maps are switched that goes on for the next interval.
        interrupts = sum(counts.values())
        lost = self._inheritance.add_to(counts, self._rate_hz)
        grown = {name: now[name] - began.counters[name] for name in COUNTER_NAMES}
        interrupts += sum(grown[name] for name in _WITHOUT_SAMPLE)
        interval = Interval(
            counts=counts,
            lost={name: grown[name] for name in _LOST if grown[name]} | lost,
            samples=sum(counts.values()),
            kernel_ns=grown["own_ns"],
            start_ns=began.start_ns,
            duration_ns=ended_monotonic_ns - began.start_monotonic_ns,
            skipped={name: grown[name] for name in _SKIPPED if grown[name]},
            interrupts=interrupts,
            python_samples=grown["python_samples"],
            python_ns=grown["python_ns"],
            number=number,
        )
        running.begin_interval(BookedInterval(ended_ns, ended_monotonic_ns, now))
        return interval

    def drop_interval(self) -> int:
        """End the interval and give it up, its stacks too; returns its samples."""
        samples = self.take_interval().samples
        self._first = self._held().control.generation
        return samples

    def _follow_cpus(self, running: Running) -> None:
        """A CPU that went away takes its event with it, and one that came has none yet."""
        if self._rate_hz and running.clock.follow(online_cpus(), self._rate_hz):
            self._beginning.keep(running, self._rate_hz)

    def totals(self) -> Totals:
        running = self._held()
        seen = {name: n - running.first[name] for name, n in running.interval.counters.items()}
        interrupts = seen["samples"] + sum(seen[name] for name in _WITHOUT_SAMPLE)
        return Totals(seen["samples"], interrupts, seen["own_ns"], seen["python_ns"])

    @property
    def inherited_s(self) -> float | None:
        """How old the interval was that `start` found begun by programs made otherwise."""
        return self._inheritance.age_s

    @property
    def has_unreadable(self) -> bool:
        """Whether `start` found such programs that it could not read: their samples are lost."""
        return self._inheritance.is_unreadable

    @property
    def unwind_maps(self) -> UnwindMaps | None:
        """What user stacks are walked by: empty after `start`, to be written by the caller until
        `stop`. None where they are walked by frame pointers."""
        return self._held().unwind if self._settings.unwind else None

    @property
    def python_maps(self) -> PythonMaps | None:
        """What Python frames are read by, to be written like `unwind_maps`. None where none are."""
        return self._held().python if self._settings.python else None

    @property
    def call_fd(self) -> int:
        """The ring buffer. An edge of it in epoll (EPOLLIN | EPOLLET) is a call of the kernel: a
        stack of a process that user space does not know, or a buffer that fills up."""
        return self._held().loaded.maps[STACKS]

    @property
    def unresolved_exclusions(self) -> list[str]:
        """Exclusions that have no effect at present, in words."""
        return self._exclusions.unresolved

    def map_bytes(self) -> int:
        """Kernel memory of the maps: what the kernel accounts, or the estimate where that is more.

        Before 6.4 the kernel shows keys and values only, without the entries' heads and buckets.
        """
        running = self._held()
        if self._map_bytes is None:
            accounted = sum(accounted_bytes(fd) for fd in running.loaded.maps.values())
            self._map_bytes = max(accounted, self._beginning.sizes.total_bytes)
        shards = running.unwind.memory_bytes() if running.unwind is not None else 0
        return self._map_bytes + shards

    def set_rate(self, rate_hz: int) -> None:
        """Sample at another rate from now on, not at all at 0; the maps keep the size that they
        were made with.

        Raises PerfEventError when the kernel refuses the rate; the old one then goes on.
        """
        running = self._held()
        if rate_hz == self._rate_hz:
            return
        self._beginning.discard()  # or the events of the old rate would live on in it
        running.clock.stop()
        try:
            if rate_hz:
                running.clock.start(online_cpus(), rate_hz)
        except PerfEventError:
            if self._rate_hz:
                running.clock.start(online_cpus(), self._rate_hz)
                self._beginning.keep(running, self._rate_hz)
            raise
        self._rate_hz = rate_hz
        if rate_hz:
            self._beginning.keep(running, self._rate_hz)

    @property
    def reads_python(self) -> bool:
        """Whether Python frames are read at present."""
        is_given_up = self._held().control.given_up & GIVEN_UP_PYTHON
        return self.python_maps is not None and not is_given_up

    def read_python(self, is_on: bool) -> None:
        """Read Python frames from the next sample on, or leave them out for the time being; what
        was started without them stays so."""
        control = self._held().control
        others = control.given_up & ~GIVEN_UP_PYTHON
        control.given_up = others if is_on else others | GIVEN_UP_PYTHON

    def stop(self) -> None:
        """Let go: without a store that detaches and unloads, and what was not taken is gone."""
        running, self._running = self._running, None
        if running is not None:
            running.close()
