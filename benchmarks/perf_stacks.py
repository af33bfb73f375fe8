"""Stacks of one process as `perf record --call-graph` takes them (man 1 perf-script)."""

import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.agent_stacks import Sampled, function_name
from benchmarks.shares import Stack
from node_agent.symbols.demangle import demangle

DWARF = "dwarf,16384"  # bytes of each sample's stack that are copied
FRAME_POINTERS = "fp"  # for Go, which has them: perf does not read its unwind tables
_KERNEL = ("[kernel.kallsyms]", "[kernel]", "[guest.kernel.kallsyms]")
# Where a user stack may begin: the entry point of a program or thread, or a stack of Go's runtime.
_ENTRIES = {
    *("_start", "clone3", "__clone3", "clone", "__clone"),
    *("runtime.goexit", "runtime.rt0_go", "_rt0_amd64_linux", "_rt0_amd64", "runtime.mstart"),
}


@contextmanager
def perf_record(pid: int, rate_hz: int, data: Path, call_graph: str) -> Iterator[None]:
    """Sample process `pid` into `data` while the context is open; times are Unix time."""
    command = ["perf", "record", "-q", "-k", "CLOCK_REALTIME", "-e", "cpu-clock"]
    command += ["-F", str(rate_hz), "-m", "4M", "--call-graph", call_graph]
    process = subprocess.Popen(
        [*command, "-p", str(pid), "-o", str(data)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(1)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)


def read_perf(data: Path, start_ns: int, duration_ns: int) -> Sampled:
    """The samples of a window; perf unwinds them now, with libdw."""
    command = ["perf", "script", "-i", str(data), "--ns", "--no-inline", "--no-demangle"]
    process = subprocess.Popen(
        [*command, "-F", "time,ip,sym,dso"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    sampled = Sampled(start_ns=start_ns, duration_ns=duration_ns)
    names: dict[str, str] = {}
    for at_ns, lines in _blocks(process.stdout):
        if start_ns <= at_ns < start_ns + duration_ns:
            stack, entry = _stack(lines, names)
            sampled.stacks[stack] += 1
            end = "complete" if entry else "incomplete"
            sampled.ends[end] = sampled.ends.get(end, 0) + 1
    if process.wait() != 0:
        raise SystemExit(f"perf script cannot read {data}")
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


def _stack(lines: list[str], names: dict[str, str]) -> tuple[Stack, bool]:
    """User frames, root first, and whether the root is an entry point."""
    stack = []
    root_symbol = root_file = ""
    for line in lines:
        symbol, _, file = line.partition(" ")[2].rpartition(" (")
        file = file.rstrip(")")
        if file.startswith("[") and (file in _KERNEL or file not in ("[vdso]", "[unknown]")):
            continue
        root_symbol, root_file = symbol, file
        if symbol not in names:
            names[symbol] = function_name("" if symbol == "[unknown]" else demangle(symbol))
        stack.append(names[symbol])
    # Debian's libc has no symbol for where its threads begin.
    is_entry = names.get(root_symbol, "") in _ENTRIES or (
        root_symbol == "[unknown]" and "/libc.so" in root_file
    )
    return tuple(stack[::-1]) or ("",), is_entry
