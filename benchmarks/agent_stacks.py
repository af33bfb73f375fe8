"""Stacks of one process as `flamefleet-agent record` takes them."""

import io
import re
import time
from collections import Counter
from dataclasses import dataclass, field

from benchmarks.shares import Stack
from node_agent.record.naming import name_frames
from node_agent.record.progress import Progress
from node_agent.record.sampling import Sampling
from node_agent.symbols.modules import ModuleRegistry
from wire.schema import ModuleKind

FRAME_BYTES = 16
WARM_UP_S = 120.0
_KERNEL = (ModuleKind.KERNEL, ModuleKind.KERNEL_MODULE)
_PYTHON_MODULE = b"python"
# Parts of one function that the compiler made two of, and the version of a dynamic symbol.
_PART = re.compile(r"(?:\.(?:cold|part|isra|constprop|lto_priv)(?:\.\d+)?)+$|@@?[\w.]+$|\.abi0$")


@dataclass
class Sampled:
    """What one sampler saw of a process; user frames only."""

    registry: ModuleRegistry
    stacks: Counter[Stack] = field(default_factory=Counter)
    python: Counter[Stack] = field(default_factory=Counter)  # Python's functions only
    ends: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    kernel_ns: int = 0
    start_ns: int = 0  # Unix time
    duration_ns: int = 0

    @property
    def kernel_us_per_sample(self) -> float:
        """Own time of the BPF program, samples that it left out included."""
        return self.kernel_ns / 1e3 / max(1, self.stacks.total())

    @property
    def complete_percent(self) -> float:
        """Samples whose user part reached the entry point of its thread."""
        return 100 * self.ends.get("complete", 0) / max(1, sum(self.ends.values()))


def quiet() -> Progress:
    return Progress(io.StringIO())


def wait_for_rows(pid: int, rate_hz: int) -> float | None:
    """Sample process `pid` until its stacks are whole, as they are for an agent that runs for a
    while: unwind rows are made in the background at the lowest priority. The seconds that took;
    None when they were not after WARM_UP_S."""
    begun = time.monotonic()
    while time.monotonic() - begun < WARM_UP_S:
        sampling = Sampling(rate_hz, pid, None, ModuleRegistry())
        ends = sampling.run(1.0, quiet()).ends
        if ends.get("complete", 0) > sum(ends.values()) / 2:
            return time.monotonic() - begun
    return None


def sample(pid: int, seconds: float, rate_hz: int) -> Sampled:
    """Sample process `pid` alone."""
    registry = ModuleRegistry()
    taken = Sampling(rate_hz, pid, None, registry).run(seconds, quiet())
    sampled = Sampled(registry, ends=taken.ends, lost=taken.lost)
    sampled.kernel_ns = taken.kernel_ns
    sampled.start_ns, sampled.duration_ns = taken.started_ns, taken.duration_ns
    counts: Counter[bytes] = Counter()
    for (_, _, stack_hash), count in taken.counts.items():
        counts[taken.packed[stack_hash]] += count
    name_stacks(sampled, counts)
    return sampled


def name_stacks(sampled: Sampled, counts: Counter[bytes]) -> None:
    """Add the stacks of `counts` (packed frames, root first) to `sampled` by their names."""
    registry = sampled.registry
    named = name_frames(counts, registry, quiet())
    kernel = {hash64 for hash64, module in registry.modules.items() if module.kind in _KERNEL}
    python = {hash64 for hash64, module in registry.modules.items() if module.id == _PYTHON_MODULE}
    for packed, count in counts.items():
        frames: list[str] = []
        python_frames: list[str] = []
        is_python = False
        for at in range(0, len(packed), FRAME_BYTES):
            hash64 = int.from_bytes(packed[at : at + 8], "little")
            if hash64 not in kernel:
                frame = named[packed[at : at + FRAME_BYTES]]
                frames += [function_name(caller.function) for caller in frame.callers]
                is_python = hash64 in python
                (python_frames if is_python else frames).append(function_name(frame.function))
        if is_python:
            frames.append("")  # it was taken in the evaluator, whose place that frame has
        sampled.stacks[tuple(frames) or ("",)] += count
        sampled.python[tuple(map(python_name, python_frames)) or ("",)] += count


def function_name(text: str) -> str:
    """The function without what the compiler made of its name; "" when it has none."""
    return "" if "+0x" in text else _PART.sub("", text)


def python_name(text: str) -> str:
    """The plain name: not every tool knows the qualified one."""
    return text.rpartition(".")[2]
