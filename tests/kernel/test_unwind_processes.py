"""Real programs without frame pointers, of every kind, sampled together on this machine's kernel:
their stacks are whole.

They all run at the same time, at the lowest priority; what is asserted are shares and chains of
functions, never times.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pytest

from node_agent.collectors.cpu import CpuCollector
from node_agent.collectors.stacks import StackEnd, end_of
from node_agent.kernel.structs import MAX_STACK_DEPTH
from node_agent.normalize import Normalizer
from node_agent.record.naming import name_frames
from node_agent.symbols.kallsyms import KernelFrames
from node_agent.symbols.modules import ModuleRegistry
from node_agent.unwind.builder import RowBuilder
from node_agent.unwind.cache import RowCache
from node_agent.unwind.unwinder import Unwinder

HERE = Path(__file__).parent
SOURCES = HERE / "unwinding"
SHARED = HERE.parent / "data/programs/unwind"
FLAGS = ("-O2", "-fomit-frame-pointer", "-Wall", "-Werror")
RATE_HZ = 199
POLL_S = 0.1
ENOUGH = 40  # samples of each program
LIMIT_S = 60.0
RUN = uuid4().hex[:5]  # thread names tell the programs from those of other tests
# program: (source, how it is compiled)
C_PROGRAMS = {
    "pie": ("chain", ("gcc", "-fpie", "-pie")),
    "fixed": ("chain", ("gcc", "-no-pie")),
    "static": ("chain", ("gcc", "-static")),
    "spie": ("chain", ("gcc", "-static-pie")),
    "musl": ("chain", ("musl-gcc",)),
    "smusl": ("chain", ("musl-gcc", "-static")),
    "deleted": ("chain", ("gcc",)),
    "replaced": ("chain", ("gcc",)),
    "inside": ("chain", ("gcc",)),
    "short": ("brief", ("gcc", "-static")),
    "execed": ("chain", ("gcc",)),
    "exec": ("exec", ("gcc",)),
    "early": ("late", ("gcc", "-ldl")),
    "forks": ("forks", ("gcc",)),
    "clocks": ("clocks", ("gcc",)),
    "signals": ("signals", ("gcc",)),
    "threads": ("threads", ("gcc", "-pthread")),
    "copies": ("copies", ("gcc",)),
    "deep": ("deep", ("gcc",)),
    "maps": ("mappings", ("gcc",)),
}
BECOMES = {"exec": None, "early": "late"}  # other names, once they do what is looked for


class Row(NamedTuple):
    """Samples of one stack; frames root first."""

    frames: tuple[str, ...]
    end: StackEnd
    samples: int


class Seen(NamedTuple):
    rows: dict[str, list[Row]]  # by program
    unwinder: Unwinder

    def share(self, name: str, end: StackEnd) -> float:
        rows = self.rows[name]
        return sum(row.samples for row in rows if row.end is end) / self.samples(name)

    def chain_share(self, name: str, *chain: str) -> float:
        """The share of samples with these functions calling each other."""
        length = len(chain)
        found = sum(
            row.samples
            for row in self.rows[name]
            if any(row.frames[at : at + length] == chain for at in range(len(row.frames)))
        )
        return found / self.samples(name)

    def samples(self, name: str) -> int:
        return sum(row.samples for row in self.rows[name])


def thread_name(program: str) -> str:
    return f"{program}-{RUN}"


def compile_programs(folder: Path) -> None:
    for program, (source, (compiler, *options)) in C_PROGRAMS.items():
        target = folder / thread_name(program)
        libraries = [option for option in options if option.startswith("-l")]
        others = [option for option in options if not option.startswith("-l")]
        command = [compiler, *FLAGS, *others, "-o", target, SOURCES / f"{source}.c", *libraries]
        subprocess.run(command, check=True)
    shared = ["gcc", *FLAGS, "-shared", "-fpic", "-o", folder / "library.so"]
    subprocess.run([*shared, SOURCES / "library.c"], check=True)
    cache = os.environ | {"GOCACHE": str(Path.home() / ".cache/go-build")}
    subprocess.run([SHARED / "build.sh", folder, "routines"], check=True, env=cache)
    (folder / "routines").rename(folder / thread_name("go"))


def make_root(folder: Path, program: Path) -> Path:
    """A root of its own for a program, with its libraries."""
    root = folder / "root"
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for word in [str(program), *linked.split()]:
        if word.startswith("/"):
            target = root / word[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(word, target)
    return root


def commands(folder: Path) -> dict[str, list[str]]:
    path = {name: str(folder / thread_name(name)) for name in [*C_PROGRAMS, "go"]}
    found = {name: [path[name]] for name in path if name not in ("execed", "short", "inside")}
    found["exec"].append(path["execed"])
    found["early"] += [str(folder / "library.so"), thread_name("late")]
    found["short"] = ["sh", "-c", f"while {path['short']}; do :; done"]
    root = make_root(folder, Path(path["inside"]))
    found["inside"] = [
        *("unshare", "--pid", "--mount", "--fork", "--kill-child", f"--root={root}"),
        path["inside"],
    ]
    return found


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """All of them running; their names."""
    folder = tmp_path_factory.mktemp("unwinding")
    compile_programs(folder)
    running = {
        name: subprocess.Popen(
            ["nice", "-n", "19", *command], start_new_session=True, stderr=subprocess.DEVNULL
        )
        for name, command in commands(folder).items()
    }
    try:
        for name in ("deleted", "replaced"):
            await_program(running[name].pid, folder / thread_name(name))
        (folder / thread_name("deleted")).unlink()
        shutil.copy("/bin/true", folder / "other")
        (folder / "other").rename(folder / thread_name("replaced"))
        names = (BECOMES.get(name, name) for name in [*C_PROGRAMS, "go"])
        yield [name for name in names if name is not None]
        ended = [name for name, process in running.items() if process.poll() is not None]
    finally:
        for process in running.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert ended == []


def await_program(pid: int, program: Path) -> None:
    """Return when the process runs it."""
    end = time.monotonic() + LIMIT_S
    while os.readlink(f"/proc/{pid}/exe") != str(program):  # noqa: PTH115 (a link, not followed)
        assert time.monotonic() < end
        time.sleep(0.01)


class Watcher:
    """What the sampler does with stacks, in small, and with those of certain threads only."""

    def __init__(self, collector: CpuCollector, folder: Path, names: Collection[str]) -> None:
        self._names = names
        self.packed: dict[bytes, bytes] = {}
        self.registry = ModuleRegistry()
        self.normalizer = Normalizer(self.registry, KernelFrames(self.registry), self, 100_000)
        maps = collector.unwind_maps
        assert maps is not None
        builder = RowBuilder(RowCache(folder))
        self.unwinder = Unwinder(maps, self.registry, builder, self.normalizer.space)
        self.normalizer.signals = self.unwinder.signals
        self.whole: set[str] = set()  # thread names that had a whole stack
        self._collector = collector

    def knows(self, stack_hash: bytes) -> bool:
        return stack_hash in self.packed

    def add(self, stack_hash: bytes, packed: bytes) -> None:
        self.packed[stack_hash] = packed

    def poll(self) -> None:
        for raw in self._collector.poll():
            if raw.thread_name not in self._names:
                continue
            self.normalizer.add(raw)
            self.unwinder.note(raw)
            if raw.end in (StackEnd.COMPLETE, StackEnd.TRUNCATED):
                self.whole.add(raw.thread_name)
        self.unwinder.step()


@pytest.fixture(scope="module")
def seen(programs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """One interval in which each program has ENOUGH samples, begun when each was unwound once."""
    collector = CpuCollector(RATE_HZ, 100_000, 10)
    collector.start()
    names = {thread_name(name): name for name in programs}
    watcher = Watcher(collector, tmp_path_factory.mktemp("rows"), names)
    try:
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end and not watcher.whole >= names.keys():
            time.sleep(POLL_S)
            watcher.poll()
        collector.take_interval()
        samples = dict.fromkeys(names, 0)
        counts = {}
        while time.monotonic() < end and min(samples.values()) < ENOUGH:
            for _ in range(10):
                time.sleep(POLL_S)
                watcher.poll()
            interval = collector.take_interval()
            watcher.poll()
            ours = {key: n for key, n in interval.counts.items() if key.thread_name in names}
            watcher.unwinder.end_interval(ours)
            for key, count in ours.items():
                samples[key.thread_name] += count
                place = key, watcher.normalizer.find(key)
                counts[place] = counts.get(place, 0) + count
        named = name_frames(watcher.packed.values(), watcher.registry)
    finally:
        watcher.unwinder.close()
        collector.stop()
    rows: dict[str, list[Row]] = {name: [] for name in programs}
    for (key, stack_hash), count in counts.items():
        packed = watcher.packed[stack_hash]
        frames = tuple(named[packed[at : at + 16]].function for at in range(0, len(packed), 16))
        rows[names[key.thread_name]].append(Row(frames, end_of(key.flags), count))
    yield Seen(rows, watcher.unwinder)


@pytest.mark.parametrize(
    "name", ["pie", "fixed", "static", "spie", "deleted", "replaced", "inside", "execed", "maps"]
)
def test_stacks_reach_from_the_entry_point_to_the_leaf(seen: Seen, name: str) -> None:
    assert seen.samples(name) >= ENOUGH
    assert seen.share(name, StackEnd.COMPLETE) >= 0.98, seen.rows[name]
    calls = ("main", "outer", "work") if name == "maps" else ("main", "outer", "inner", "work")
    assert seen.chain_share(name, *calls) >= 0.95, seen.rows[name]
    assert all(row.frames[0] == "_start" for row in seen.rows[name] if row.end is StackEnd.COMPLETE)


@pytest.mark.parametrize("name", ["musl", "smusl"])
def test_programs_of_musl_are_whole(seen: Seen, name: str) -> None:
    """Their C library has no unwind information."""
    assert seen.share(name, StackEnd.COMPLETE) >= 0.98, seen.rows[name]
    assert seen.chain_share(name, "main", "outer", "inner", "work") >= 0.95, seen.rows[name]


def test_a_library_that_is_loaded_later_is_unwound(seen: Seen) -> None:
    assert seen.share("late", StackEnd.COMPLETE) >= 0.98, seen.rows["late"]
    assert seen.chain_share("late", "main", "outer", "in_library", "work") >= 0.95


def test_forks_without_exec_are_unwound_however_short_they_live(seen: Seen) -> None:
    assert seen.share("forks", StackEnd.COMPLETE) >= 0.95, seen.rows["forks"]
    in_child = seen.chain_share("forks", "main", "outer", "in_child", "work")
    in_parent = seen.chain_share("forks", "main", "outer", "in_parent", "work")
    assert in_child > 0.1
    assert in_parent > 0.1
    assert in_child + in_parent >= 0.9


def test_programs_that_live_for_half_a_second_are_unwound_or_counted(seen: Seen) -> None:
    rows = seen.rows["short"]
    whole, unknown = (seen.share("short", end) for end in (StackEnd.COMPLETE, StackEnd.NO_MAPPING))
    assert whole > 0, rows
    assert whole + unknown > 0.95, rows
    assert all("_start" in row.frames for row in rows if row.end is StackEnd.COMPLETE)


def test_the_vdso_is_unwound(seen: Seen) -> None:
    assert seen.share("clocks", StackEnd.COMPLETE) >= 0.98, seen.rows["clocks"]
    in_vdso = [row for row in seen.rows["clocks"] if "[vdso]" in row.frames]
    assert sum(row.samples for row in in_vdso) > 0.2 * seen.samples("clocks")
    assert all("read_clock" in row.frames for row in in_vdso if row.end is StackEnd.COMPLETE)


def test_a_signal_handler_stands_on_what_it_interrupted(seen: Seen) -> None:
    assert seen.share("signals", StackEnd.COMPLETE) >= 0.98, seen.rows["signals"]
    calls = ("handle", "outer", "in_handler", "work")
    in_handler = [
        row.frames
        for row in seen.rows["signals"]
        if any(row.frames[at : at + 4] == calls for at in range(len(row.frames)))
    ]
    assert seen.chain_share("signals", *calls) > 0.3
    for frames in in_handler:
        before = frames[: frames.index("handle") - 1]  # without the return from the handler
        assert before[-1] in ("interrupted", "outer", "main"), frames
        assert before[0] == "_start"


def test_threads_are_unwound_to_their_beginning(seen: Seen) -> None:
    assert seen.share("threads", StackEnd.COMPLETE) >= 0.98, seen.rows["threads"]
    assert seen.chain_share("threads", "in_thread", "outer", "work") >= 0.95


def test_samples_of_kernel_code_have_the_users_part(seen: Seen) -> None:
    assert seen.share("copies", StackEnd.COMPLETE) >= 0.98, seen.rows["copies"]
    in_kernel = [row for row in seen.rows["copies"] if "do_syscall_64" in row.frames]
    assert sum(row.samples for row in in_kernel) > 0.5 * seen.samples("copies")
    whole = [row for row in in_kernel if row.end is StackEnd.COMPLETE]
    assert all(row.frames[0] == "_start" for row in whole)
    with_copy = sum(row.samples for row in whole if pair_of_main(row.frames) == ("main", "copy"))
    assert with_copy >= 0.95 * sum(row.samples for row in whole)


def pair_of_main(frames: tuple[str, ...]) -> tuple[str, ...]:
    at = frames.index("main") if "main" in frames else 0
    return frames[at : at + 2]


def test_go_is_unwound_by_its_frame_pointers(seen: Seen) -> None:
    assert seen.share("go", StackEnd.COMPLETE) >= 0.95, seen.rows["go"]


def test_what_is_too_deep_is_cut_and_said(seen: Seen) -> None:
    assert seen.share("deep", StackEnd.TRUNCATED) >= 0.98, seen.rows["deep"]
    depths = {
        sum(frame in ("descend", "work") for frame in row.frames) for row in seen.rows["deep"]
    }
    assert MAX_STACK_DEPTH in depths


def test_nothing_was_lost_on_the_way(seen: Seen) -> None:
    status = seen.unwinder.status()
    assert status["error"] == ""
    assert not {"map_error", "system_error", "rows_full", "mappings_full"} & status["lost"].keys()
    assert status["rows"] > 10_000
    assert status["modules"]["loaded"] >= 10
    assert status["map_bytes"] <= 10 << 20
