"""Sample for some seconds, name the frames, write the file."""

import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TextIO

from node_agent.capabilities import KERNEL_PROGRAMS, OTHER_PROCESSES, using
from node_agent.collectors.cpu import CpuCollector
from node_agent.collectors.stacks import Interval
from node_agent.exclusions import ExcludeConfig
from node_agent.kernel.structs import SAMPLE_KERNEL_THREAD
from node_agent.normalize import Normalizer
from node_agent.processes.errors import ProcessGoneError
from node_agent.processes.identity import Identities
from node_agent.processes.mappings import read_start_ticks
from node_agent.record.errors import RecordError
from node_agent.record.naming import name_frames
from node_agent.record.output import Stack, Times, choose_encoder, prepare
from node_agent.symbols.kallsyms import KernelFrames
from node_agent.symbols.modules import ModuleRegistry
from wire.pprof import Frame

POLL_S = 0.2  # more often than the sampler: nobody counts the cost of a short recording
INTERVAL_S = 5.0
MAX_SAMPLES = 200_000
PERF_MAP_BURST_BYTES = 64 << 20
# Root's recording goes where it was asked to, into another user's folder too.
WRITING = ("CAP_DAC_OVERRIDE",)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Recording(NamedTuple):
    """What was recorded."""

    output: Path
    samples: int
    lost: dict[str, int]
    duration_s: float


class _Stacks:
    """Frames by stack hash (the DefinitionSink of the normalizer), and counts."""

    def __init__(self) -> None:
        self.packed: dict[bytes, bytes] = {}
        self.counts: dict[tuple[str, str, bytes], int] = {}

    def knows(self, stack_hash: bytes) -> bool:
        return stack_hash in self.packed

    def add(self, stack_hash: bytes, packed: bytes) -> None:
        self.packed[stack_hash] = packed


def record(
    seconds: float,
    rate: int,
    pid: int | None,
    output: Path,
    progress: TextIO | None = None,
    exclude: ExcludeConfig | None = None,
) -> Recording:
    """Profile this host, or process `pid` alone, for `seconds` at `rate` Hz into `output`.

    What `exclude` names is not read, whatever else is asked for.

    SIGINT or SIGTERM ends the sampling early; what was sampled is written. `progress` (standard
    error) gets a line only when it is a terminal. Raises RecordError or KernelError.
    """
    encoder = choose_encoder(output)
    _check_process(pid)
    with using(*WRITING):
        draft = prepare(output)
    try:
        stacks = _Stacks()
        registry = ModuleRegistry()
        started_ns, started = time.time_ns(), time.monotonic_ns()
        lost = _sample(seconds, rate, pid, exclude, stacks, registry, progress or sys.stderr)
        times = Times(started_ns, time.monotonic_ns() - started, round(1e9 / rate))
        named = name_frames(stacks.packed.values(), registry)
        rows = [
            Stack(process, thread, _frames(stacks.packed[stack_hash], named), count)
            for (process, thread, stack_hash), count in stacks.counts.items()
        ]
        try:
            content = encoder(rows, times)
            with using(*WRITING):
                draft.write_bytes(content)
                draft.replace(output)
        except OSError as error:
            raise RecordError(f"{output} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError), using(*WRITING):
            draft.unlink(missing_ok=True)
    samples = sum(stacks.counts.values())
    return Recording(output, samples, lost, times.duration_ns / 1e9)


def _sample(
    seconds: float,
    rate: int,
    pid: int | None,
    exclude: ExcludeConfig | None,
    stacks: _Stacks,
    registry: ModuleRegistry,
    progress: TextIO,
) -> dict[str, int]:
    """Fill `stacks`; returns the samples lost, by reason."""
    normalizer = Normalizer(
        registry, KernelFrames(registry), stacks, MAX_SAMPLES, PERF_MAP_BURST_BYTES
    )
    identities = Identities({})
    lost: dict[str, int] = {}
    collector = CpuCollector(
        rate, MAX_SAMPLES, INTERVAL_S, only_tgid=pid, mode="auto", exclude=exclude
    )
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        with using(*KERNEL_PROGRAMS):
            collector.start()
        try:
            begun = time.monotonic()
            interval_at = begun + INTERVAL_S
            ended = False
            while not ended:
                left_s = begun + seconds - time.monotonic()
                stopped = signal.sigtimedwait(_SIGNALS, max(0.0, min(POLL_S, left_s)))
                ended = stopped is not None or time.monotonic() >= begun + seconds
                if ended or time.monotonic() >= interval_at:
                    with using(*KERNEL_PROGRAMS):
                        interval = collector.take_interval()
                    interval_at += INTERVAL_S
                    new = collector.poll()
                    with using(*OTHER_PROCESSES):
                        for raw in new:
                            normalizer.add(raw)
                        _book(interval, normalizer, identities, stacks, lost)
                else:
                    new = collector.poll()
                    with using(*OTHER_PROCESSES):
                        for raw in new:
                            normalizer.add(raw)
                _show(progress, time.monotonic() - begun, seconds, ended)
        finally:
            collector.stop()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
    return lost


def _book(
    interval: Interval,
    normalizer: Normalizer,
    identities: Identities,
    stacks: _Stacks,
    lost: dict[str, int],
) -> None:
    for reason, count in interval.lost.items():
        lost[reason] = lost.get(reason, 0) + count
    for key, count in interval.counts.items():
        labels = identities.labels(
            (key.tgid, key.start_ns, key.exec_id),
            key.cgroup_id,
            key.thread_name,
            bool(key.flags & SAMPLE_KERNEL_THREAD),
        )
        place = (labels["executable"], key.thread_name, normalizer.find(key))
        stacks.counts[place] = stacks.counts.get(place, 0) + count


def _frames(packed: bytes, named: dict[bytes, Frame]) -> list[Frame]:
    return [named[packed[at : at + 16]] for at in range(0, len(packed), 16)]


def _check_process(pid: int | None) -> None:
    if pid is None:
        return
    try:
        with using(*OTHER_PROCESSES):  # /proc may hide other users' processes
            read_start_ticks(pid)
    except ProcessGoneError as error:
        raise RecordError(f"there is no process {pid}", "See ps for the running ones.") from error


def _show(progress: TextIO, passed_s: float, seconds: float, ended: bool) -> None:
    if progress.isatty():
        end = "\n" if ended else ""
        progress.write(f"\rsampling {min(passed_s, seconds):4.0f} of {seconds:.0f} s{end}")
        progress.flush()
