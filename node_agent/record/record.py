"""Sample for some seconds, name the frames, write the file."""

import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TextIO

from node_agent.capabilities import OTHER_PROCESSES, using
from node_agent.exclusions import ExcludeConfig
from node_agent.faults import Faults
from node_agent.log import Log
from node_agent.processes.errors import ProcessGoneError
from node_agent.processes.mappings import read_start_ticks
from node_agent.record.advice import UNNAMED_JIT
from node_agent.record.errors import RecordError
from node_agent.record.naming import name_frames
from node_agent.record.output import Stack, Times, choose_encoder, prepare
from node_agent.record.progress import Progress
from node_agent.record.sampling import SIGNALS, Sampling
from node_agent.symbols.modules import ModuleRegistry
from wire.pprof import Frame

# Root's recording goes where it was asked to, into another user's folder too.
WRITING = ("CAP_DAC_OVERRIDE",)


class Recording(NamedTuple):
    """What was recorded."""

    output: Path
    samples: int
    lost: dict[str, int]
    duration_s: float
    stack_ends: dict[str, int]  # samples with a user part, by how that ended
    unnamed_jit: dict[str, int]  # samples with a frame that reads [jit], by process


def record(
    seconds: float,
    rate: int,
    pid: int | None,
    output: Path,
    progress: TextIO | None = None,
    exclude: ExcludeConfig | None = None,
    unwind: bool = True,
    python: bool = True,
) -> Recording:
    """Profile this host, or process `pid` alone, for `seconds` at `rate` Hz into `output`.

    What `exclude` names is not read, whatever else is asked for. Without `unwind` native stacks are
    walked by frame pointers alone, without `python` they have no Python frames.

    SIGINT or SIGTERM ends the sampling early, and again the naming; what there is then is written.
    `progress` (standard error) is told how far it is. Raises RecordError or KernelError.
    """
    encoder = choose_encoder(output)
    _check_process(pid)
    with using(*WRITING):
        draft = prepare(output)
    told = Progress(progress or sys.stderr)
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        registry = ModuleRegistry(Faults(Log("record")))
        sampling = Sampling(rate, pid, exclude, registry, unwind, python)
        stacks = sampling.run(seconds, told)
        times = Times(stacks.started_ns, stacks.duration_ns, round(1e9 / rate))
        named = name_frames(stacks.packed.values(), registry, told)
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
        told.end()
        while signal.sigtimedwait(SIGNALS, 0) is not None:
            pass  # an impatient second Ctrl-C: the file is written
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
    samples = sum(stacks.counts.values())
    return Recording(
        output,
        samples,
        stacks.lost,
        stacks.duration_ns / 1e9,
        stacks.ends,
        _unnamed_jit(rows),
    )


def _unnamed_jit(rows: list[Stack]) -> dict[str, int]:
    samples: dict[str, int] = {}
    for row in rows:
        if any(frame.function == UNNAMED_JIT for frame in row.frames):
            samples[row.process] = samples.get(row.process, 0) + row.samples
    return samples


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
