"""Frames of real CPythons of every version that is here, read by the kernel program."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from node_agent.collectors.cpu import CpuCollector
from node_agent.cpython.structs import MAX_PYTHON_PROCESSES, PythonProcessC

HERE = Path(__file__).parent
PROJECT = HERE.parent.parent
PROGRAMS = PROJECT / "tests/data/programs/python"
MODES = PROGRAMS / "modes.py"
SUBINTERPRETERS = PROGRAMS / "subinterpreters.py"
SAMPLES = 1500  # of two that differ by a fifth, on a busy machine: half a point of error
FEW_SAMPLES = 300  # where shares don't count
SPINNING = ("spin_a", "spin_b")
# Ways whose callback is called by C code, and such as stay in Python all the way.
THROUGH_C = ("way_sort", "way_map", "way_regex", "way_ctypes")
PYTHON_ONLY = ("way_plain", "way_recursion")


class Sampled(NamedTuple):
    """A distinct stack: (module, function, file, first line) root first, native ones (module,)."""

    frames: list[tuple[Any, ...]]
    samples: int
    stack_end: str
    python_end: str

    @property
    def python(self) -> tuple[tuple[str, str, int], ...]:
        return tuple(frame[1:] for frame in self.frames if frame[0] == "python")

    @property
    def is_spinning(self) -> bool:
        return bool(self.python) and self.python[-1][0] in SPINNING


class Recorded(NamedTuple):
    said: dict[str, list[list[list[Any]]]]
    stacks: list[Sampled]
    spent: dict[str, int]
    refused: dict[str, str]
    again: dict[str, int]  # samples by how their Python part ended, after it was given up

    def count(self, wanted: Callable[[Sampled], bool]) -> int:
        return sum(stack.samples for stack in self.stacks if wanted(stack))

    def way_of(self, stack: Sampled) -> str:
        """The way whose chain this is, as the interpreter itself told it; else ""."""
        caller = [list(frame) for frame in stack.python[:-1]]
        return next((way for way, chains in self.said.items() if caller in chains), "")


Record = Callable[..., Recorded]
pytestmark = pytest.mark.timeout(900)  # a slow machine takes its time


@pytest.fixture(scope="session")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    rows = tmp_path_factory.mktemp("rows")  # libc's are made once

    def run(*command: str | Path, switch: str = "on", samples: int = SAMPLES) -> Recorded:
        script = HERE / "python_frames.py"
        done = subprocess.run(
            [sys.executable, script, str(samples), switch, *command],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(PROJECT), "ROWS": str(rows)},
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        stacks = [
            Sampled([tuple(frame) for frame in frames], count, stack_end, python_end)
            for frames, count, stack_end, python_end in found["stacks"]
        ]
        return Recorded(found["said"], stacks, found["spent"], found["refused"], found["again"])

    return run


def check(recorded: Recorded) -> None:
    total = recorded.count(lambda _: True)
    assert total >= SAMPLES
    assert recorded.count(lambda stack: bool(stack.python)) >= 0.98 * total

    check_chains(recorded)
    spinning = recorded.count(lambda stack: stack.is_spinning)
    main = recorded.count(lambda stack: ("main",) in [frame[:1] for frame in stack.python])
    assert 0.3 * total < main < 0.7 * total  # the other half: a thread

    in_a = recorded.count(lambda stack: stack.is_spinning and stack.python[-1][0] == "spin_a")
    assert abs(in_a / spinning - 0.6) <= 0.03, in_a / spinning


def check_chains(recorded: Recorded) -> None:
    """Functions, files and lines, in order, from the thread's entry to the leaf."""
    spinning = recorded.count(lambda stack: stack.is_spinning)
    exact = Counter[str]()
    for stack in recorded.stacks:
        if stack.is_spinning:
            exact[recorded.way_of(stack)] += stack.samples
    assert set(exact) >= set(recorded.said), exact
    assert spinning - exact[""] >= 0.98 * spinning, exact


def between(stack: Sampled, way: str) -> list[bool]:
    """For the frames from the function `way` to the innermost Python frame: is it native?"""
    names = [frame[1] if frame[0] == "python" else "" for frame in stack.frames]
    innermost = max(index for index, name in enumerate(names) if name)
    return [name == "" for name in names[names.index(way) : innermost]]


def check_interleaving(recorded: Recorded) -> None:
    """C code stands where it called back, and the interpreter's own calls are gone."""
    whole = [stack for stack in recorded.stacks if stack.stack_end == "COMPLETE"]
    ways = {id(stack): recorded.way_of(stack) for stack in whole if stack.is_spinning}
    seen = Counter[tuple[str, bool]]()
    for stack in whole:
        way = ways.get(id(stack))
        if way:
            seen[way, any(between(stack, way))] += stack.samples
    for way in THROUGH_C:
        assert seen[way, True] >= 0.95 * (seen[way, True] + seen[way, False]) > 0, seen
    for way in PYTHON_ONLY:
        assert seen[way, False] >= 0.95 * (seen[way, True] + seen[way, False]) > 0, seen


def test_python_frames_of_this_version(cpython: Path, record: Record) -> None:
    recorded = record(cpython, MODES)

    check(recorded)
    check_interleaving(recorded)
    assert recorded.spent["python_samples"] >= 0.98 * recorded.spent["samples"]
    assert 0 < recorded.spent["python_ns"] < recorded.spent["kernel_ns"]


@pytest.fixture(scope="module")
def newer_debian() -> Path:
    """CPython 3.14, stripped, with another C library, in a root of its own."""
    root = PROJECT / "build/python/3.14"
    subprocess.run([HERE / "pythons.sh", "forky", "3.14", root], check=True)
    for program in (MODES, SUBINTERPRETERS):
        (root / "opt" / program.name).write_bytes(program.read_bytes())
    return root


def test_python_frames_of_a_newer_debians_stripped_interpreter(
    newer_debian: Path, record: Record
) -> None:
    check(record("chroot", newer_debian, "/usr/bin/python3.14", "/opt/modes.py"))


def test_python_frames_with_cpythons_jit(
    newer_debian: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its code keeps no frame pointers, so native stacks end there; Python's don't."""
    monkeypatch.setenv("PYTHON_JIT", "1")
    python = ("chroot", newer_debian, "/usr/bin/python3.14")
    asked = [*python, "-c", "import sys; print(sys._jit.is_enabled())"]
    if subprocess.check_output(asked, text=True) != "True\n":
        pytest.skip("this build has no JIT")

    recorded = record(*python, "/opt/modes.py")

    check(recorded)
    cut_short = recorded.count(lambda stack: stack.stack_end in ("NO_MAPPING", "NO_ROWS"))
    assert cut_short > 0, "the JIT made no code"


def check_subinterpreter(recorded: Recorded) -> None:
    """Its functions, and none of those of the interpreter that called it."""
    expected = [("<module>", 1), ("way_inside", 6), ("spin_a", 1)]
    total = recorded.count(lambda _: True)
    assert total >= FEW_SAMPLES
    seen = Counter[bool]()
    for stack in recorded.stacks:
        if stack.is_spinning:
            found = [(name, line) for name, _, line in stack.python]
            seen[found == expected] += stack.samples
    assert seen[True] >= 0.95 * total, recorded.stacks


def test_python_frames_of_a_subinterpreter(record: Record) -> None:
    check_subinterpreter(record("/usr/bin/python3", SUBINTERPRETERS, samples=FEW_SAMPLES))


@pytest.mark.long
def test_python_frames_of_a_subinterpreter_of_every_version(cpython: Path, record: Record) -> None:
    check_subinterpreter(record(cpython, SUBINTERPRETERS, samples=FEW_SAMPLES))


def test_python_frames_of_a_subinterpreter_in_a_thread(newer_debian: Path, record: Record) -> None:
    """A thread that has a state in both interpreters."""
    command = ("chroot", newer_debian, "/usr/bin/python3.14", "/opt/subinterpreters.py", "thread")
    check_subinterpreter(record(*command, samples=FEW_SAMPLES))


def test_python_frames_of_greenlets(record: Record) -> None:
    """Each has a chain of its own, on a stack that is copied to and fro."""
    if importlib.util.find_spec("greenlet") is None:
        pytest.skip("needs the package greenlet")

    recorded = record(sys.executable, PROGRAMS / "greenlets.py", samples=FEW_SAMPLES)

    assert recorded.count(lambda stack: bool(stack.python)) >= 0.98 * FEW_SAMPLES
    check_chains(recorded)


def test_python_frames_of_an_embedded_interpreter(record: Record, tmp_path: Path) -> None:
    """libpython in a program that is no Python by its name."""
    version = sysconfig.get_python_version()
    program = tmp_path / "embed"
    include = sysconfig.get_path("include", scheme="posix_prefix", vars={"installed_base": "/usr"})
    flags: list[str | Path] = [f"-I{include}", PROGRAMS / "embed.c", f"-lpython{version}"]
    subprocess.run(["gcc", "-o", program, *flags], check=True)

    recorded = record(program, MODES)

    check(recorded)


def test_the_switch_leaves_native_frames_only(record: Record) -> None:
    recorded = record("/usr/bin/python3", MODES, switch="off")

    total = recorded.count(lambda _: True)
    assert total >= SAMPLES
    assert recorded.count(lambda stack: bool(stack.python)) == 0
    assert recorded.count(lambda stack: stack.python_end == "NONE") == total
    native = [stack for stack in recorded.stacks if stack.stack_end == "COMPLETE"]
    modules = {frame[0] for stack in native for frame in stack.frames}
    assert any(re.match(r"python3\.\d+$", module) for module in modules), modules
    assert recorded.spent.get("python_samples", 0) == 0


def test_what_is_given_up_leaves_whole_native_stacks_and_comes_back(record: Record) -> None:
    recorded = record("/usr/bin/python3", MODES, switch="given-up")

    total = recorded.count(lambda _: True)
    assert total >= SAMPLES
    assert recorded.count(lambda stack: bool(stack.python)) == 0
    assert recorded.count(lambda stack: stack.python_end == "OFF") >= 0.98 * total
    whole = [stack for stack in recorded.stacks if stack.stack_end == "COMPLETE"]
    assert sum(stack.samples for stack in whole) >= 0.98 * total
    modules = {frame[0] for stack in whole for frame in stack.frames}
    assert any(re.match(r"python3\.\d+$", module) for module in modules), modules
    assert recorded.spent["python_samples"] >= 0.98 * total
    assert recorded.spent.get("python_ns", 0) == 0
    after = sum(recorded.again.values())
    assert recorded.again["COMPLETE"] >= 0.98 * after >= 0.98 * SAMPLES / 3


def test_an_agent_that_takes_over_knows_no_process_of_the_one_before() -> None:
    collector = CpuCollector(19, 1000, 5.0, python=True)
    collector.start()
    try:
        maps = collector.python_maps
        assert maps is not None
        for tgid in range(5, 300):
            assert maps.put_process(tgid, PythonProcessC(start_ns=tgid))
        found = maps.process(299)
        assert found is not None
        assert found.start_ns == 299

        maps.clear()

        assert [tgid for tgid in range(5, 300) if maps.process(tgid) is not None] == []
    finally:
        collector.stop()


def test_processes_that_find_no_room_are_told() -> None:
    collector = CpuCollector(19, 1000, 5.0, python=True)
    collector.start()
    try:
        maps = collector.python_maps
        assert maps is not None
        for tgid in range(MAX_PYTHON_PROCESSES):
            assert maps.put_process(tgid, PythonProcessC())
        assert not maps.put_process(MAX_PYTHON_PROCESSES, PythonProcessC())

        maps.drop_process(0)

        assert maps.put_process(MAX_PYTHON_PROCESSES, PythonProcessC())
    finally:
        collector.stop()
