"""Names the functions of kernel modules where it is run; what it found is one line of JSON.

A child makes and removes files below /tmp/merged, where an overlay is mounted whose driver is a
module, while every stack of the child is turned into frames and named just as `record` does it.
Judging is for the test outside.
"""

import io
import json
import os
import time
from collections import Counter
from pathlib import Path

from node_agent.collectors.cpu import CpuCollector
from node_agent.normalize import Normalizer
from node_agent.record.naming import name_frames
from node_agent.record.progress import Progress
from node_agent.symbols.kallsyms import KernelFrames
from node_agent.symbols.modules import ModuleRegistry
from wire.schema import ModuleKind

WANTED = 100  # samples
LIMIT_S = 300.0


class Stacks:
    """Frames by stack hash, as the normalizer hands them over."""

    def __init__(self) -> None:
        self.packed: dict[bytes, bytes] = {}

    def knows(self, stack_hash: bytes) -> bool:
        return stack_hash in self.packed

    def add(self, stack_hash: bytes, packed: bytes) -> None:
        self.packed[stack_hash] = packed


def make_files() -> None:
    """Busy until killed: a file of the overlay is made, renamed and removed."""
    made, moved = Path("/tmp/merged/made"), Path("/tmp/merged/moved")
    while True:
        made.touch()
        made.rename(moved)
        moved.unlink()


def main() -> None:
    collector = CpuCollector(rate_hz=99, max_samples=100_000, interval_s=10)
    collector.start()
    child = os.fork()
    if child == 0:
        make_files()
    registry, stacks = ModuleRegistry(), Stacks()
    normalizer = Normalizer(registry, KernelFrames(registry), stacks, 100_000)
    counts: Counter[bytes] = Counter()
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end and counts.total() < WANTED:
        time.sleep(0.5)
        interval = collector.take_interval()
        for raw in collector.poll():
            normalizer.add(raw)
        for key, count in interval.counts.items():
            if key.tgid == child:
                counts[normalizer.find(key)] += count
    collector.stop()
    os.kill(child, 9)
    os.waitpid(child, 0)

    named = name_frames(stacks.packed.values(), registry, Progress(io.StringIO()))
    modules: dict[str, dict[str, object]] = {
        module.name: {"build_id": module.id.hex(), "functions": Counter()}
        for module in registry.modules.values()
        if module.kind == ModuleKind.KERNEL_MODULE
    }
    for stack_hash, count in counts.items():
        packed = stacks.packed[stack_hash]
        for frame in {named[packed[at : at + 16]] for at in range(0, len(packed), 16)}:
            if frame.module in modules:
                functions = modules[frame.module]["functions"]
                assert isinstance(functions, Counter)
                functions[frame.function] += count
    found = {
        "release": os.uname().release,
        "samples": counts.total(),
        "modules": modules,
        "lost": registry.lost,
    }
    print(json.dumps(found))


main()
