"""What happens when rows and mappings don't all fit, on real maps and with real programs."""

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from node_agent.collectors.cpu import CpuCollector
from node_agent.collectors.stacks import ProcessKey, StackEnd, end_of
from node_agent.kernel.unwind_maps import UnwindMaps
from node_agent.processes.address_space import AddressSpace
from node_agent.symbols.modules import ModuleRegistry
from node_agent.unwind.builder import RowBuilder
from node_agent.unwind.unwinder import Unwinder

SOURCE = Path(__file__).parent / "unwinding/chain.c"
RUN = uuid4().hex[:5]
LIMIT_S = 600.0  # other work may leave the programs little time


def build(folder: Path, name: str, padding: int) -> Path:
    """chain.c with so many functions more, whose rows nobody needs."""
    more = folder / f"{name}.h"
    functions = (f"int more{n}(int x) {{ int y[9]; g(y); return y[x]; }}" for n in range(padding))
    more.write_text("void g(int *);\nvoid g(int *x) { *x = 1; }\n" + "\n".join(functions))
    program = folder / f"{name}-{RUN}"
    command = ["gcc", "-O2", "-fomit-frame-pointer", "-static", "-include", more]
    subprocess.run([*command, "-o", program, SOURCE], check=True)
    return program


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two static programs with rows of their own, each of about the same number."""
    folder = tmp_path_factory.mktemp("room")
    return [build(folder, name, 500 + n) for n, name in enumerate(("one", "two"))]


@pytest.fixture
def running(programs: list[Path]) -> Iterator[list[subprocess.Popen[bytes]]]:
    started = [subprocess.Popen(["nice", "-n", "19", program]) for program in programs]
    yield started
    for process in started:
        process.kill()
        process.wait()


class Watcher:
    """An unwinder that looks at some processes only."""

    def __init__(
        self, collector: CpuCollector, pids: list[int], row_bytes: int, mappings: int
    ) -> None:
        maps = collector.unwind_maps
        assert maps is not None
        self.maps: UnwindMaps = maps
        self._spaces: dict[ProcessKey, AddressSpace] = {}
        self.builder = RowBuilder()
        self.unwinder = Unwinder(
            maps, ModuleRegistry(), self.builder, self._space, row_bytes, mappings * 32
        )
        self.pids = pids
        self._collector = collector

    def _space(self, key: ProcessKey) -> AddressSpace:
        return self._spaces.setdefault(key, AddressSpace(key.tgid, key.start_ns))

    def poll(self) -> None:
        for raw in self._collector.poll():
            if raw.process.tgid in self.pids:
                self.unwinder.note(raw)
        self.unwinder.step()

    def interval(self, seconds: float = 1.0) -> dict[int, Counter[StackEnd]]:
        """How the stacks of each process ended in an interval."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.1)
            self.poll()
        counts = self._collector.take_interval().counts
        ours = {key: count for key, count in counts.items() if key.tgid in self.pids}
        self.poll()
        self.unwinder.end_interval(ours)
        found = {pid: Counter[StackEnd]() for pid in self.pids}
        for key, count in ours.items():
            found[key.tgid][end_of(key.flags)] += count
        return found

    def until(self, pid: int, end: StackEnd) -> None:
        """Intervals until nothing of the process ends otherwise."""
        limit = time.monotonic() + LIMIT_S
        while time.monotonic() < limit:
            ends = self.interval()[pid]
            if ends.total() > 0 and ends.keys() == {end}:
                return
        raise AssertionError(f"{end.name} never came: {ends}, {self.unwinder.status()}")


@pytest.fixture
def collector() -> Iterator[CpuCollector]:
    collector = CpuCollector(199, 100_000, 10)
    collector.start()
    yield collector
    collector.stop()


def row_bytes_of(collector: CpuCollector, process: subprocess.Popen[bytes]) -> int:
    """What the rows of a program take, with the vdso's."""
    watcher = Watcher(collector, [process.pid], 1 << 20, 1 << 12)
    watcher.until(process.pid, StackEnd.COMPLETE)
    row_bytes = int(watcher.unwinder.status()["row_bytes"])
    watcher.unwinder.close()
    watcher.maps.clear()
    return row_bytes


def test_the_busier_program_has_the_room(
    collector: CpuCollector, running: list[subprocess.Popen[bytes]]
) -> None:
    first, second = running
    os.kill(second.pid, signal.SIGSTOP)
    row_bytes = row_bytes_of(collector, first)
    watcher = Watcher(collector, [first.pid, second.pid], row_bytes + row_bytes // 2, 1 << 12)

    watcher.until(first.pid, StackEnd.COMPLETE)
    os.kill(first.pid, signal.SIGSTOP)
    os.kill(second.pid, signal.SIGCONT)
    watcher.until(second.pid, StackEnd.COMPLETE)  # in the place of the first
    os.kill(first.pid, signal.SIGCONT)
    watcher.until(first.pid, StackEnd.NO_ROOM)

    status = watcher.unwinder.status()
    watcher.unwinder.close()
    assert status["modules"]["no_room"] == 1
    assert status["lost"]["rows_full"] >= 1
    assert status["row_bytes"] <= status["row_bytes_limit"]


def test_lists_without_room_are_counted_and_their_processes_not_known(
    collector: CpuCollector, running: list[subprocess.Popen[bytes]]
) -> None:
    first, second = running
    # A static program has two executable mappings: its own and the vdso.
    watcher = Watcher(collector, [first.pid, second.pid], 1 << 20, 3)
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end and not watcher.unwinder.status()["mapping_lists_without_room"]:
        watcher.interval()

    status = watcher.unwinder.status()
    watcher.unwinder.close()
    assert status["mapping_lists"] == 2
    assert status["mapping_lists_without_room"] >= 1
    assert status["lost"]["mappings_full"] >= 1
    assert len(watcher.maps.tgids()) == 1


def test_forks_share_a_list_and_processes_that_end_are_forgotten(
    collector: CpuCollector, tmp_path: Path
) -> None:
    program = tmp_path / f"sharing-{RUN}"
    source = tmp_path / "sharing.c"
    source.write_text(
        "#include <unistd.h>\n#include <sys/prctl.h>\n"
        "int main(void) { int n = fork() != 0; if (n) fork();\n"
        "prctl(1, 9); for (volatile long i = 0;; i++); }\n"
    )
    subprocess.run(["gcc", "-O2", "-o", program, source], check=True)
    parent = subprocess.Popen(["nice", "-n", "19", program])
    try:
        end = time.monotonic() + LIMIT_S
        pids: list[int] = []
        while len(pids) < 2 and time.monotonic() < end:
            children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text()
            pids = [int(word) for word in children.split()]
        pids.append(parent.pid)
        watcher = Watcher(collector, pids, 1 << 20, 1 << 12)
        for pid in pids:
            watcher.until(pid, StackEnd.COMPLETE)
        while time.monotonic() < end and watcher.unwinder.status()["processes"] < 3:
            watcher.interval()
        status = watcher.unwinder.status()
        known = set(watcher.maps.tgids())
    finally:
        parent.kill()
        parent.wait()
    assert (status["processes"], status["mapping_lists"]) == (3, 1)
    assert known == set(pids)
    while time.monotonic() < end and watcher.unwinder.status()["processes"]:
        watcher.interval(0.2)
    watcher.unwinder.close()
    assert watcher.unwinder.status()["processes"] == 0
    assert watcher.maps.tgids() == []
