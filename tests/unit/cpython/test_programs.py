"""Which processes become known to the kernel program, and why others don't."""

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node_agent.collectors.stacks import Interval, ProcessKey, PythonEnd, RawStack, SampleKey
from node_agent.cpython.mapped import find_interpreters
from node_agent.cpython.programs import PythonPrograms
from node_agent.cpython.structs import PythonLayoutC, PythonProcessC
from node_agent.kernel.structs import PYTHON_END_SHIFT
from node_agent.processes.address_space import AddressSpace
from node_agent.processes.mappings import Mapping, Mappings, read_start_ticks
from node_agent.symbols.modules import ModuleRegistry

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
SLEEP = "import time; print(1, flush=True); time.sleep(60)"
FORK = "import os, time; pid = os.fork(); pid and print(pid, flush=True); time.sleep(60)"


class Written:
    """What the kernel program would have been told."""

    def __init__(self, room: int = 100) -> None:
        self.layouts: dict[int, PythonLayoutC] = {}
        self.processes: dict[int, PythonProcessC] = {}
        self._room = room

    def put_layout(self, number: int, layout: PythonLayoutC) -> None:
        self.layouts[number] = layout

    def put_process(self, tgid: int, process: PythonProcessC) -> bool:
        if len(self.processes) >= self._room:
            return False
        self.processes[tgid] = process
        return True

    def drop_process(self, tgid: int) -> None:
        del self.processes[tgid]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        ["/usr/bin/python3", "-c", SLEEP], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def key_of(tgid: int, exec_id: int = 2) -> ProcessKey:
    return ProcessKey(tgid, read_start_ticks(tgid) * TICK_NS, exec_id)


def stack_of(key: ProcessKey) -> RawStack:
    return RawStack(1, key, "python3", 0, (), (0x1000,), False)


class Rig:
    def __init__(self, room: int = 100) -> None:
        self.written = Written(room)
        self.spaces: dict[ProcessKey, AddressSpace] = {}
        self.programs = PythonPrograms(self.written, ModuleRegistry(), self.space)

    def space(self, key: ProcessKey) -> AddressSpace:
        space = self.spaces.setdefault(key, AddressSpace(key.tgid, key.start_ns))
        space.is_readable()
        return space

    def note(self, key: ProcessKey) -> None:
        self.programs.note(stack_of(key))
        end = time.monotonic() + 60
        while not self.programs.is_settled and time.monotonic() < end:
            self.programs.step()
            time.sleep(0.02)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.programs.close()


def test_a_python_program_becomes_known(rig: Rig, sleeper: subprocess.Popen[str]) -> None:
    key = key_of(sleeper.pid)

    rig.note(key)
    rig.note(key)

    record = rig.written.processes[sleeper.pid]
    assert (record.start_ns, record.exec_id, record.layout) == (key.start_ns, 2, 0)
    assert record.interpreters > record.bias
    assert rig.written.layouts[0].evaluator_count >= 1
    assert rig.programs.status()["processes"] == {"known": 1}


def test_the_second_process_of_a_build_is_known_at_once(
    rig: Rig, sleeper: subprocess.Popen[str]
) -> None:
    rig.note(key_of(sleeper.pid))
    with subprocess.Popen(["/usr/bin/python3", "-c", SLEEP], stdout=subprocess.PIPE) as second:
        assert second.stdout is not None
        second.stdout.readline()
        rig.programs.note(stack_of(key_of(second.pid)))  # without a step
        second.kill()

    first_salt, second_salt = (record.salt for record in rig.written.processes.values())
    assert len(rig.written.layouts) == 1
    assert first_salt != second_salt


def test_a_forked_process_has_the_ids_of_its_parent(rig: Rig) -> None:
    with subprocess.Popen(
        ["/usr/bin/python3", "-c", FORK], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        rig.note(key_of(parent.pid))
        rig.note(key_of(child))
        parent.kill()
        os.kill(child, 9)

    salts = {record.salt for record in rig.written.processes.values()}
    assert set(rig.written.processes) == {parent.pid, child}
    assert len(salts) == 1


def test_a_process_that_ended_is_forgotten(rig: Rig, sleeper: subprocess.Popen[str]) -> None:
    rig.note(key_of(sleeper.pid))
    rig.programs.sweep()
    assert sleeper.pid in rig.written.processes
    sleeper.kill()
    sleeper.wait()

    rig.programs.sweep()

    assert rig.written.processes == {}


def test_no_room_is_counted(sleeper: subprocess.Popen[str]) -> None:
    rig = Rig(room=0)

    rig.note(key_of(sleeper.pid))

    assert rig.programs.counts == {"no_room": 1}


def test_a_program_that_only_has_the_name_is_refused_in_words(rig: Rig, tmp_path: Path) -> None:
    program = tmp_path / "python3.11"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    with subprocess.Popen([program, "60"]) as process:
        key = key_of(process.pid)
        maps = Path(f"/proc/{process.pid}/maps")
        while not re.search(rf" r-xp .* {program}\n", maps.read_text()):
            time.sleep(0.01)
        rig.note(key)
        process.kill()

    assert rig.written.processes == {}
    assert rig.programs.counts == {"refused": 1}
    assert "holds no CPython" in rig.programs.refused["python3.11"]


def test_other_programs_are_left_alone(rig: Rig, await_program) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        await_program(process)
        rig.note(key_of(process.pid))
        process.kill()

    assert (rig.written.processes, rig.programs.counts) == ({}, {})


def test_libraries_come_before_the_program_that_loads_them() -> None:
    program = Mapping(0x1000, 0x2000, 0, 8, 1, 5, b"/usr/bin/python3.12")
    library = Mapping(0x5000, 0x9000, 0, 8, 1, 6, b"/usr/lib/libpython3.12.so.1.0")
    other = Mapping(0xA000, 0xB000, 0, 8, 1, 7, b"/opt/python3.12/lib/libz.so")

    assert find_interpreters(Mappings.of((program, library, other))) == [library]
    assert find_interpreters(Mappings.of((program, other))) == [program]
    assert find_interpreters(Mappings.of((other,))) == []


def test_ends_and_cost_of_an_interval_are_told(rig: Rig) -> None:
    def key(number: int, end: PythonEnd) -> SampleKey:
        return SampleKey(number, 5, 6, 2, 7, "python3", end << PYTHON_END_SHIFT)

    counts = {
        key(1, PythonEnd.COMPLETE): 5,
        key(2, PythonEnd.COMPLETE): 2,
        key(3, PythonEnd.READ_FAULT): 1,
        key(4, PythonEnd.NONE): 90,
    }
    rig.programs.end_interval(Interval(counts, {}, 98, 900, 0, 1, python_samples=8, python_ns=700))

    assert rig.programs.status() == {
        "ends": {"complete": 7, "read_fault": 1},
        "python_samples": 8,
        "python_ns": 700,
        "processes": {},
        "refused": {},
    }
