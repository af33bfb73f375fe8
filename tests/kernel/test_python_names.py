"""Names of Python code that find no room in the ring buffer are sent again."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from node_agent.collectors.cpu import CpuCollector
from node_agent.cpython.programs import PythonPrograms
from node_agent.normalize import Normalizer
from node_agent.symbols.kallsyms import KernelFrames
from node_agent.symbols.modules import ModuleRegistry

FUNCTIONS = 800  # a name takes 456 bytes of the ring buffer, and it has 256 KiB
LOAD = """
import time

SPIN = '''
def function_{}():
    end = time.perf_counter_ns() + 1_000_000
    while time.perf_counter_ns() < end:
        pass
'''
functions = []
for number in range(FUNCTIONS):
    exec(SPIN.format(number))
    functions.append(globals()[f"function_{number}"])
while True:
    for function in functions:
        function()
"""
pytestmark = pytest.mark.timeout(900)


class Reader:
    """What the sampler does with stacks, at this test's pace."""

    def __init__(self, tgid: int) -> None:
        # Maps as small as they get: made for one sample a second.
        self.collector = CpuCollector(1, 100_000, 60.0, only_tgid=tgid, unwind=False, python=True)
        self.collector.start()
        self.collector.set_rate(997)
        registry = ModuleRegistry()
        self.defined: dict[bytes, bytes] = {}
        self.normalizer = Normalizer(registry, KernelFrames(registry), self, 100_000)
        maps = self.collector.python_maps
        assert maps is not None
        self.programs = PythonPrograms(maps, registry, self.normalizer.space)
        self.names = self.normalizer.python
        self.missed: set[int] = set()  # ids of code objects whose name was not there
        self.received = 0
        self._forget = maps.forget_names

    def knows(self, stack_hash: bytes) -> bool:
        return stack_hash in self.defined

    def add(self, stack_hash: bytes, packed: bytes) -> None:
        self.defined[stack_hash] = packed

    def read(self) -> bool:
        """Take what waits; whether the kernel program knows the process."""
        for raw in self.collector.stacks():
            self.received += len(raw.python_names)
            self.normalizer.add(raw)
            self.programs.note(raw)
        self.programs.step()
        return bool(self.programs.counts.get("known"))

    def end_interval(self) -> int:
        """Every stack is sent anew from now on. How many records had no room in the last one."""
        interval = self.collector.take_interval()
        self.normalizer.end_interval()
        return interval.lost.get("ring_full", 0)

    def lose_names(self) -> bool:
        """Don't read until the ring buffer is long full; was a stack there without a name?"""
        self.names.forget = self._forget
        for _ in range(2):
            self.names.rotate()  # forgotten here, so all are to be sent again
        self.missed.clear()
        self.names.forget = self.missed.update  # the kernel program must know by itself
        lost = 0
        while lost < 100:
            time.sleep(0.1)
            lost += self.end_interval()
        self.read()
        return bool(self.missed)

    def has_names(self) -> bool:
        """Read as the sampler does, for an interval; did all names come that were missed?"""
        for _ in range(10):
            time.sleep(0.05)
            self.read()
        self.end_interval()
        return all(self.names.frame(id64) != self.names.unknown for id64 in list(self.missed))

    def close(self) -> None:
        self.programs.close()
        self.collector.stop()


@pytest.fixture
def reader() -> Iterator[Reader]:
    code = LOAD.replace("FUNCTIONS", str(FUNCTIONS))
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        reader = Reader(process.pid)
        try:
            yield reader
        finally:
            reader.close()
            process.kill()


def test_names_that_found_no_room_come_with_a_later_interval(
    reader: Reader, wait_until: Callable[..., Any]
) -> None:
    wait_until(reader.read, "the program never became known")

    wait_until(reader.lose_names, "no stack ever came without its names")
    unnamed = reader.normalizer.counts["python_unnamed"]
    assert unnamed >= len(reader.missed) > 0
    wait_until(reader.has_names, lambda: f"{len(reader.missed)} names never came")

    # All are there, and what came once is not sent again.
    wait_until(lambda: reader.has_names() and len(reader.names) >= FUNCTIONS, "names are missing")
    before = reader.received
    assert wait_until(reader.has_names)
    assert reader.received - before <= FUNCTIONS / 10
    assert len(reader.names) <= 2 * FUNCTIONS
