"""The sampling of one recording: poll, place, count."""

import os
import pwd
import signal
import time
from pathlib import Path

from node_agent.capabilities import KERNEL_PROGRAMS, OTHER_PROCESSES, using
from node_agent.children.runner import Children
from node_agent.collectors.cpu import CpuCollector
from node_agent.collectors.stacks import Interval, StackEnd, end_of
from node_agent.cpython.inspector import Inspector
from node_agent.cpython.programs import PythonPrograms
from node_agent.exclusions import ExcludeConfig
from node_agent.kernel.structs import SAMPLE_KERNEL_THREAD
from node_agent.normalize import Normalizer
from node_agent.processes.excluded import ExcludedProcesses
from node_agent.processes.identity import Identities
from node_agent.record.progress import Progress
from node_agent.symbols.kallsyms import KernelFrames
from node_agent.symbols.modules import ModuleRegistry
from node_agent.unwind.builder import RowBuilder
from node_agent.unwind.cache import RowCache
from node_agent.unwind.unwinder import Unwinder

POLL_S = 0.2  # more often than the sampler: nobody counts the cost of a short recording
INTERVAL_S = 5.0
SETTLE_POLL_S = 0.05
MIN_SETTLE_S = 0.3
MAX_SETTLE_S = 8.0  # the rows of a large program take a second, on a busy host several
MAX_SAMPLES = 200_000
PERF_MAP_BURST_BYTES = 64 << 20
ROWS_BYTES = 8 << 20  # twice the sampler's: it is for a short time
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stacks:
    """Frames by stack hash (the DefinitionSink of the normalizer), and counts."""

    def __init__(self) -> None:
        self.packed: dict[bytes, bytes] = {}
        self.counts: dict[tuple[str, str, bytes], int] = {}
        self.ends: dict[str, int] = {}  # samples with a user part, by how that ended
        self.lost: dict[str, int] = {}
        self.started_ns = time.time_ns()
        self.duration_ns = 0
        self.kernel_ns = 0  # the kernel program's own time

    def knows(self, stack_hash: bytes) -> bool:
        return stack_hash in self.packed

    def add(self, stack_hash: bytes, packed: bytes) -> None:
        self.packed[stack_hash] = packed


class Sampling:
    """Samples all processes or `pid` alone, at `rate` Hz."""

    def __init__(
        self,
        rate: int,
        pid: int | None,
        exclude: ExcludeConfig | None,
        registry: ModuleRegistry,
        unwind: bool = True,
        python: bool = True,
    ) -> None:
        self._stacks = Stacks()
        self._registry = registry
        self._normalizer = Normalizer(
            registry, KernelFrames(registry), self._stacks, MAX_SAMPLES, PERF_MAP_BURST_BYTES
        )
        self._identities = Identities({}, faults=registry.faults)
        if exclude:
            excluded = ExcludedProcesses(exclude)
            self._normalizer.is_excluded = self._identities.is_excluded = excluded.covers
        self._collector = CpuCollector(
            rate,
            MAX_SAMPLES,
            INTERVAL_S,
            only_tgid=pid,
            mode="auto",
            exclude=exclude,
            unwind=unwind,
            python=python,
        )
        self._unwinder: Unwinder | None = None
        self._programs: PythonPrograms | None = None

    def run(self, seconds: float, progress: Progress) -> Stacks:
        """Sample for `seconds`, or until SIGINT or SIGTERM, which are blocked. Raises KernelError.

        Before that the programs that are busy now become known to the kernel program, or the
        stacks of a short recording would be mostly incomplete.
        """
        progress.begin("reading the programs that are busy now")
        with using(*KERNEL_PROGRAMS):
            self._collector.start()
        try:
            self._begin_unwinding()
            self._begin_python()
            begun_ns = time.monotonic_ns()
            settled_ns = self._settle(progress)
            if settled_ns is None:
                self._end_interval()  # asked to stop already: what there is counts
            else:
                begun_ns = settled_ns
                self._sample(seconds, progress)
            self._stacks.duration_ns = time.monotonic_ns() - begun_ns
        finally:
            if self._unwinder is not None:
                self._unwinder.close()
            if self._programs is not None:
                self._programs.close()
            self._collector.stop()
        return self._stacks

    def _begin_unwinding(self) -> None:
        maps = self._collector.unwind_maps
        if maps is not None:
            children = Children(faults=self._registry.faults)
            builder = RowBuilder(RowCache(_cache_folder()), children)
            self._unwinder = Unwinder(
                maps,
                self._registry,
                builder,
                self._normalizer.space,
                ROWS_BYTES,
            )
            self._normalizer.signals = self._unwinder.signals

    def _begin_python(self) -> None:
        maps = self._collector.python_maps
        if maps is not None:
            inspector = Inspector(Children(faults=self._registry.faults))
            self._programs = PythonPrograms(maps, self._registry, self._normalizer.space, inspector)
            self._normalizer.python.forget = maps.forget_names

    def _settle(self, progress: Progress) -> int | None:
        """Read the busy programs. The monotonic time from which on samples count, in nanoseconds;
        None when a signal came meanwhile."""
        begun_s = time.monotonic()
        settled = self._unwinder is None and self._programs is None
        while not settled:
            if signal.sigtimedwait(SIGNALS, SETTLE_POLL_S) is not None:
                return None
            self._poll()
            passed_s = time.monotonic() - begun_s
            is_ready = self._unwinder is None or self._unwinder.is_settled
            is_ready = is_ready and (self._programs is None or self._programs.is_settled)
            settled = (is_ready and passed_s >= MIN_SETTLE_S) or passed_s >= MAX_SETTLE_S
            progress.show(
                f"reading the programs that are busy now: {passed_s:.0f} of at most "
                f"{MAX_SETTLE_S:.0f} s"
            )
        with using(*KERNEL_PROGRAMS):
            self._collector.take_interval()
        # Now and not after the poll, which takes seconds on a busy host.
        self._stacks.started_ns, settled_ns = time.time_ns(), time.monotonic_ns()
        self._poll()
        return settled_ns

    def _sample(self, seconds: float, progress: Progress) -> None:
        progress.begin(f"sampling for {seconds:g} s; Ctrl-C ends it earlier")
        begun = time.monotonic()
        interval_at = begun + INTERVAL_S
        ended = False
        while not ended:
            left_s = begun + seconds - time.monotonic()
            stopped = signal.sigtimedwait(SIGNALS, max(0.0, min(POLL_S, left_s)))
            ended = stopped is not None or time.monotonic() >= begun + seconds
            if ended or time.monotonic() >= interval_at:
                interval_at += INTERVAL_S
                self._end_interval()
            else:
                self._poll()
            passed_s = min(time.monotonic() - begun, seconds)
            progress.show(f"sampling: {passed_s:.0f} of {seconds:g} s")

    def _end_interval(self) -> None:
        with using(*KERNEL_PROGRAMS):
            interval = self._collector.take_interval()
        self._poll()
        with using(*OTHER_PROCESSES):
            self._book(interval)
        if self._unwinder is not None:
            self._unwinder.end_interval(interval.counts)

    def _poll(self) -> None:
        new = self._collector.poll()
        with using(*OTHER_PROCESSES):
            for raw in new:
                self._normalizer.add(raw)
                if self._unwinder is not None:
                    self._unwinder.note(raw)
                if self._programs is not None:
                    self._programs.note(raw)
            if self._programs is not None:
                self._programs.step()
        if self._unwinder is not None:
            self._unwinder.step()

    def _book(self, interval: Interval) -> None:
        stacks = self._stacks
        for reason, count in interval.lost.items():
            stacks.lost[reason] = stacks.lost.get(reason, 0) + count
        stacks.kernel_ns += interval.kernel_ns
        for key, count in interval.counts.items():
            labels = self._identities.labels(
                (key.tgid, key.start_ns, key.exec_id),
                key.cgroup_id,
                key.thread_name,
                bool(key.flags & SAMPLE_KERNEL_THREAD),
            )
            place = (labels["executable"], key.thread_name, self._normalizer.find(key))
            stacks.counts[place] = stacks.counts.get(place, 0) + count
            end = end_of(key.flags)
            if end is not StackEnd.NO_USER:
                word = end.name.lower()
                stacks.ends[word] = stacks.ends.get(word, 0) + count


def _cache_folder() -> Path:
    """Of this user's own: who could write it could make stacks wrong. Not by HOME, which sudo may
    leave as it was."""
    try:
        home = pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        home = "/nonexistent"  # then nothing is kept
    return Path(home, ".cache/flamefleet/rows")
