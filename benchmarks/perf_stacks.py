"""Stacks of one process as `perf record --call-graph` takes them (man 1 perf-script)."""

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.agent_stacks import Sampled, function_name, name_stacks
from wire.hashes import pack_frame

DWARF = "dwarf,16384"  # bytes of each sample's stack that are copied
FRAME_POINTERS = "fp"  # for Go, which has them: perf does not read its unwind tables
# Where a user stack may begin: the entry point of a program or thread, or a stack of Go's runtime.
_ENTRIES = {
    *("_start", "clone3", "__clone3", "clone", "__clone"),
    *("runtime.goexit", "runtime.rt0_go", "_rt0_amd64_linux", "_rt0_amd64", "runtime.mstart"),
    *("runtime.morestack", "runtime.mcall"),  # where goroutines leave for the runtime's stack
}


class _Frame(NamedTuple):
    offset: int  # in the file; of a caller that of its call
    symbol: str
    file: str


@contextmanager
def perf_record(
    pid: int, rate_hz: int, data: Path, call_graph: str, by_thread: bool
) -> Iterator[None]:
    """Sample into `data` while the context is open; times are Unix time. By a timer of each CPU
    that is every process, as perf has no other; `by_thread`: process `pid` alone, by a timer of
    each of its threads, which stands still while the thread doesn't run."""
    ours, its = os.pipe(), os.pipe()  # it reads what it is to do from one, answers in the other
    control = f"fd:{ours[0]},{its[1]}"
    command = ["perf", "record", "-q", "-k", "CLOCK_REALTIME", "-e", "cpu-clock"]
    command += ["-F", str(rate_hz), "-m", "4M", "--call-graph", call_graph]
    command += ["-D", "-1", "--control", control]
    process = subprocess.Popen(
        [*command, *(["-p", str(pid)] if by_thread else ["-a"]), "-o", str(data)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[ours[0], its[1]],
    )
    os.close(ours[0])
    os.close(its[1])
    try:
        # On a busy host it takes long to begin: it reads of every process first.
        os.write(ours[1], b"enable\n")
        if not os.read(its[0], 16).startswith(b"ack"):
            raise SystemExit("perf record does not begin")
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)
        os.close(ours[1])
        os.close(its[0])


def read_perf(pid: int, data: Path, ours: Sampled, call_graph: str) -> Sampled:
    """perf's samples of process `pid` in the same seconds; perf unwinds them now. Only its
    addresses are taken: they get their names in the way that ours did, so that names cannot differ.

    By frame pointers perf prints the addresses that callers return to, else those of their calls
    (tools/perf/util/unwind-libdw.c takes one off). Behind a call that a compiler inlined another
    function begins, so where it is a return address one is taken off here.
    """
    step_back = 1 if call_graph == FRAME_POINTERS else 0
    command = ["perf", "script", "-i", str(data), "--pid", str(pid)]
    command += ["--ns", "--no-inline", "--no-demangle"]
    process = subprocess.Popen(
        [*command, "-F", "time,ip,sym,dso"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    sampled = Sampled(ours.registry, start_ns=ours.start_ns, duration_ns=ours.duration_ns)
    modules = {
        os.fsdecode(source.mapping.path): hash64 for hash64, source in ours.registry.sources.items()
    }
    counts: Counter[bytes] = Counter()
    for at_ns, lines in _blocks(process.stdout):
        if ours.start_ns <= at_ns < ours.start_ns + ours.duration_ns:
            frames = [_frame(line) for line in lines]
            user = [frame for frame in frames if frame is not None]
            user[1:] = [frame._replace(offset=frame.offset - step_back) for frame in user[1:]]
            packed = [
                pack_frame(modules[frame.file], frame.offset)
                if frame.file in modules
                else ours.registry.unmapped
                for frame in reversed(user)
            ]
            counts[b"".join(packed)] += 1
            end = "complete" if user and _is_entry(user[-1]) else "incomplete"
            sampled.ends[end] = sampled.ends.get(end, 0) + 1
    if process.wait() != 0:
        raise SystemExit(f"perf script cannot read {data}")
    name_stacks(sampled, counts)
    return sampled


def _blocks(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Time and frames (leaf first) of each sample: a line with the time, indented ones with an
    address each, an empty one."""
    at_ns = 0
    frames: list[str] = []
    for line in lines:
        text = line.strip()
        if text.endswith(":"):
            seconds, _, nanoseconds = text[:-1].partition(".")
            at_ns = int(seconds) * 10**9 + int(nanoseconds)
        elif text:
            frames.append(text)
        elif at_ns:
            yield at_ns, frames
            at_ns, frames = 0, []
    if at_ns:
        yield at_ns, frames


def _frame(line: str) -> _Frame | None:
    """A user frame of perf's text: `address symbol (file)`; None for one of the kernel."""
    address, _, rest = line.partition(" ")
    symbol, _, file = rest.rpartition(" (")
    file = file.rstrip(")")
    if file.startswith("[") and file not in ("[vdso]", "[unknown]"):
        return None
    return _Frame(int(address, 16), symbol, file)


def _is_entry(root: _Frame) -> bool:
    # Debian's libc has no symbol for where its threads begin.
    in_libc = root.symbol == "[unknown]" and "/libc.so" in root.file
    return in_libc or function_name(root.symbol) in _ENTRIES
