"""Real programs without frame pointers, of every kind, sampled together at the lowest priority."""

import io
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest

from node_agent.collectors.cpu import CpuCollector
from node_agent.collectors.stacks import StackEnd, end_of
from node_agent.normalize import Normalizer
from node_agent.record.naming import name_frames
from node_agent.record.progress import Progress
from node_agent.symbols.kallsyms import KernelFrames
from node_agent.symbols.modules import ModuleRegistry
from node_agent.unwind.builder import RowBuilder
from node_agent.unwind.cache import RowCache
from node_agent.unwind.unwinder import Unwinder

HERE = Path(__file__).parent
SHARED = HERE.parents[1] / "data/programs/unwind"
FLAGS = ("-O2", "-fomit-frame-pointer", "-Wall", "-Werror")
RATE_HZ = 199
POLL_S = 0.1
ENOUGH = 40  # samples of each program; the tests count on them
LIMIT_S = 600.0  # for each thing waited for: other work may leave the programs little time
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
        command = [compiler, *FLAGS, *others, "-o", target, HERE / f"{source}.c", *libraries]
        subprocess.run(command, check=True)
    shared = ["gcc", *FLAGS, "-shared", "-fpic", "-o", folder / "library.so"]
    subprocess.run([*shared, HERE / "library.c"], check=True)
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
    options: Any = {"start_new_session": True, "stderr": subprocess.DEVNULL}
    running = {
        name: subprocess.Popen(["nice", "-n", "19", *command], **options)
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
        assert time.monotonic() < end, f"{program} was not run within {LIMIT_S} s"
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
        self.ends: dict[str, set[str]] = {}  # how stacks ended, by thread name
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
            self.ends.setdefault(raw.thread_name, set()).add(raw.end.name)
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
        while missing := names.keys() - watcher.whole:
            if time.monotonic() > end:
                told = {names[name]: sorted(watcher.ends.get(name, ())) for name in missing}
                pytest.fail(
                    f"no whole stack within {LIMIT_S} s of {told} (with the ends of their stacks);"
                    f" unwinder: {watcher.unwinder.status()}"
                )
            time.sleep(POLL_S)
            watcher.poll()
        collector.take_interval()
        samples = dict.fromkeys(names, 0)
        counts = {}
        end = time.monotonic() + LIMIT_S
        while min(samples.values()) < ENOUGH:
            if time.monotonic() > end:
                few = {names[name]: count for name, count in samples.items() if count < ENOUGH}
                pytest.fail(f"fewer than {ENOUGH} samples within {LIMIT_S} s of {few}")
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
        quiet = Progress(io.StringIO())
        named = name_frames(watcher.packed.values(), watcher.registry, quiet)
    finally:
        watcher.unwinder.close()
        collector.stop()
    rows: dict[str, list[Row]] = {name: [] for name in programs}
    for (key, stack_hash), count in counts.items():
        packed = watcher.packed[stack_hash]
        frames = tuple(named[packed[at : at + 16]].function for at in range(0, len(packed), 16))
        rows[names[key.thread_name]].append(Row(frames, end_of(key.flags), count))
    yield Seen(rows, watcher.unwinder)
