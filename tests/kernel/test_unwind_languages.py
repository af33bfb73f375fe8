"""Stacks of C++ with exceptions, Rust with panics, and a program of 60 libraries are whole."""

import io
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from node_agent.record.naming import name_frames
from node_agent.record.progress import Progress
from node_agent.record.sampling import Sampling
from node_agent.symbols.modules import ModuleRegistry

SOURCES = Path(__file__).parents[1] / "data/programs/unwind"
NEEDS = {"shapes": "g++", "traits": "rustc", "libraries": "gcc"}
RATE_HZ = 499
SECONDS = 1.5
TRIES = 20  # rows are made in the background, at the lowest priority


class Seen(NamedTuple):
    """Samples by their functions, root first, and by how their stacks ended."""

    stacks: Counter[tuple[str, ...]]
    ends: dict[str, int]

    @property
    def complete(self) -> float:
        return self.ends.get("complete", 0) / max(1, sum(self.ends.values()))

    def count(self, *functions: str) -> int:
        """Samples with a frame for each of `functions`, in this order from the root."""
        found = 0
        for stack, count in self.stacks.items():
            left = iter(stack)
            found += count * all(any(part in name for name in left) for part in functions)
        return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("languages")


@pytest.fixture
def pid(request: pytest.FixtureRequest, folder: Path) -> Iterator[int]:
    """The process id of the program that the test names."""
    name = request.param
    if shutil.which(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is missing: install it to compile {name}")
    subprocess.run([SOURCES / "build.sh", folder, name], check=True)
    process = subprocess.Popen([folder / name], stderr=subprocess.DEVNULL, start_new_session=True)
    with suppress(OSError):  # enough samples also on a busy machine (man 7 sched)
        Path(f"/proc/{process.pid}/autogroup").write_text("-10")
    yield process.pid
    process.kill()
    process.wait()


def sample(pid: int) -> Seen:
    """What is seen of a process, once its rows are known."""
    for _ in range(TRIES):
        registry = ModuleRegistry()
        taken = Sampling(RATE_HZ, pid, None, registry).run(SECONDS, Progress(io.StringIO()))
        if taken.ends.get("complete", 0) > 0.9 * sum(taken.ends.values()) >= 50:
            break
    named = name_frames(taken.packed.values(), registry, Progress(io.StringIO()))
    stacks: Counter[tuple[str, ...]] = Counter()
    for (_, _, stack_hash), count in taken.counts.items():
        packed = taken.packed[stack_hash]
        frames = (packed[at : at + 16] for at in range(0, len(packed), 16))
        stacks[tuple(named[frame].function for frame in frames)] += count
    return Seen(stacks, taken.ends)


@pytest.mark.parametrize("pid", ["shapes"], indirect=True)
def test_cpp_templates_and_exceptions(pid: int) -> None:
    seen = sample(pid)
    assert seen.complete > 0.97, seen.ends
    assert seen.count("_start", "main", "shapes::Grid<double, 3>::area") > 0
    assert seen.count("_start", "main", "shapes::order", "std::__introsort_loop") > 0
    # While an exception looks for who catches it, and while it unwinds to there.
    thrown = seen.count("_start", "shapes::attempt", "shapes::refuse", "_Unwind_")
    assert thrown > 0.9 * seen.count("_Unwind_") > 0


@pytest.mark.parametrize("pid", ["traits"], indirect=True)
def test_rust_traits_and_panics(pid: int) -> None:
    seen = sample(pid)
    assert seen.complete > 0.97, seen.ends
    assert seen.count("_start", "traits::main", "traits::Step>::run") > 0
    assert seen.count("_start", "traits::main", "traits::order") > 0
    thrown = seen.count("_start", "traits::attempt", "traits::refuse", "_Unwind_")
    assert thrown > 0.8 * seen.count("_Unwind_") > 0


@pytest.mark.parametrize("pid", ["libraries"], indirect=True)
def test_threads_through_60_libraries(pid: int) -> None:
    seen = sample(pid)
    assert seen.complete > 0.97, seen.ends
    steps = [f"step_{number}" for number in range(20, 60)]
    assert seen.count("_start", "main", "run", *steps, "work_59") > 0
    steps = [f"step_{number}" for number in range(10, 60)]
    assert seen.count("run", *steps, "work_59") > 0
