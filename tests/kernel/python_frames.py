"""Records a Python program; what it found is one line of JSON.

usage: python_frames.py SAMPLES on|off|alone|given-up COMMAND...
The program's first line of output goes into the answer. SAMPLES of it are taken, for three minutes
at most, once the kernel program knows it. `off`: native frames only; `alone`: Python frames only,
which needs no rows; `given-up`: Python frames are left out once the program is known, and `again`
tells how samples ended that were taken after they came back. A COMMAND of `self` is this
interpreter. Judging is for the test outside.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from node_agent.collectors.cpu import CpuCollector
from node_agent.collectors.stacks import PythonEnd, end_of
from node_agent.cpython.programs import PythonPrograms
from node_agent.normalize import Normalizer
from node_agent.symbols.kallsyms import KernelFrames
from node_agent.symbols.modules import ModuleRegistry
from node_agent.unwind.builder import RowBuilder
from node_agent.unwind.cache import RowCache
from node_agent.unwind.unwinder import Unwinder
from wire.schema import ModuleKind

RATE_HZ = 997
POLL_S = 0.05
SETTLE_S = 500.0
LIMIT_S = 500.0


class Definitions:
    """Frames by stack hash."""

    def __init__(self):
        self.packed = {}

    def knows(self, stack_hash):
        return stack_hash in self.packed

    def add(self, stack_hash, packed):
        self.packed[stack_hash] = packed


class Recorder:
    def __init__(self, tgid, switch, rows):
        python = switch != "off"
        self.early = []
        self.spent = Counter()
        self.registry = ModuleRegistry()
        self.definitions = Definitions()
        self.normalizer = Normalizer(
            self.registry, KernelFrames(self.registry), self.definitions, 100_000
        )
        self.collector = CpuCollector(
            RATE_HZ, 100_000, 2.0, only_tgid=tgid, unwind=switch != "alone", python=python
        )
        self.collector.start()
        self.unwinder = None
        if self.collector.unwind_maps is not None:
            self.unwinder = Unwinder(
                self.collector.unwind_maps,
                self.registry,
                RowBuilder(RowCache(Path(rows)) if rows else None),
                self.normalizer.space,
            )
            self.normalizer.signals = self.unwinder.signals
        self.programs = None
        if python:
            self.programs = PythonPrograms(
                self.collector.python_maps, self.registry, self.normalizer.space
            )
            self.normalizer.python.forget = self.collector.python_maps.forget_names

    def poll(self, ended=None):
        for raw in self.collector.poll():
            if ended is not None and raw.interval > ended:
                self.early.append(raw)
                continue
            self.normalizer.add(raw)
            if self.unwinder is not None:
                self.unwinder.note(raw)
            if self.programs is not None:
                self.programs.note(raw)
        if self.programs is not None:
            self.programs.step()
        if self.unwinder is not None:
            self.unwinder.step()

    def is_settled(self):
        if self.programs is not None and not self.programs.counts:
            return False
        return self.unwinder is None or self.unwinder.is_settled

    def settle(self):
        end = time.monotonic() + SETTLE_S
        quiet = 0
        while quiet < 5 and time.monotonic() < end:
            time.sleep(POLL_S)
            self.poll()
            quiet = quiet + 1 if self.is_settled() else 0
        self.take()

    def take(self):
        interval = self.collector.take_interval()
        self.poll(interval.number)
        counts = Counter()
        for key, count in interval.counts.items():
            ends = end_of(key.flags).name, PythonEnd(key.flags >> 12 & 15).name
            counts[(self.normalizer.find(key), *ends)] += count
        self.normalizer.end_interval()
        for raw in self.early:
            self.normalizer.add(raw)
        self.early.clear()
        self.spent += Counter(samples=interval.samples, kernel_ns=interval.kernel_ns)
        self.spent += Counter(
            python_samples=interval.python_samples, python_ns=interval.python_ns, **interval.lost
        )
        return counts

    def frames(self, stack_hash):
        packed = self.definitions.packed[stack_hash]
        found = []
        for at in range(0, len(packed), 16):
            module = self.registry.modules[int.from_bytes(packed[at : at + 8], "little")]
            name = self.registry.names.get(int.from_bytes(packed[at + 8 : at + 16], "little"))
            if module.kind == ModuleKind.NAMED:
                found.append([module.name, name.function, name.file, name.line])
            else:
                found.append([module.name])
        return found


def tell(recorder, counts, switch):
    """(frames, count, how the stack ended, how its Python part did), each once."""
    told = Counter()
    for (found, *ends), count in counts.items():
        frames = recorder.frames(found)
        if switch == "alone":
            frames = [frame for frame in frames if frame[0] == "python"]
            ends[0] = ""
        told[json.dumps([frames, *ends])] += count
    return [[frames, count, *ends] for (frames, *ends), count in decoded(told)]


def decoded(told):
    return [(json.loads(text), count) for text, count in told.items()]


def sample(recorder, samples):
    counts = Counter()
    end = time.monotonic() + LIMIT_S
    while sum(counts.values()) < samples and time.monotonic() < end:
        for _ in range(10):
            time.sleep(POLL_S)
            recorder.poll()
        counts += recorder.take()
    return counts


def main():
    samples, switch, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    command = [sys.executable if word == "self" else word for word in command]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said = program.stdout.readline()
    recorder = Recorder(program.pid, switch, os.environ.get("ROWS"))
    try:
        recorder.settle()
        recorder.spent.clear()
        if switch == "given-up":
            recorder.collector.read_python(False)
            recorder.take()
            recorder.spent.clear()
        counts = sample(recorder, samples)
        spent, again = dict(recorder.spent), Counter()
        if switch == "given-up":
            recorder.collector.read_python(True)
            recorder.take()
            for (_, _, python_end), count in sample(recorder, samples // 3).items():
                again[python_end] += count
        print(
            json.dumps(
                {
                    "release": os.uname().release,
                    "said": json.loads(said or "null"),
                    "stacks": tell(recorder, counts, switch),
                    "spent": spent,
                    "again": again,
                    "counts": recorder.normalizer.counts,
                    "programs": recorder.programs.counts if recorder.programs else {},
                    "refused": recorder.programs.refused if recorder.programs else {},
                    "map_bytes": recorder.collector.map_bytes(),
                }
            )
        )
    finally:
        if recorder.unwinder is not None:
            recorder.unwinder.close()
        if recorder.programs is not None:
            recorder.programs.close()
        recorder.collector.stop()
        program.kill()
        program.wait()


if __name__ == "__main__":
    main()
