"""An agent with the budget of its preset, loads to storm it with, and a program that is watched."""

import os
import shutil
import signal
import subprocess
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from node_agent.spool import Spool
from wire.codec import decode
from wire.schema import Batch

HERE = Path(__file__).parent
PROGRAMS = HERE.parents[1] / "data" / "programs"
SOURCES = {
    "forks": PROGRAMS / "storms/forks.c",
    "idle": PROGRAMS / "storms/idle.c",
    "stacks": PROGRAMS / "storms/stacks.c",
    "mappings": PROGRAMS / "storms/mappings.c",
    "omit": PROGRAMS / "unwind/omit.c",
}
PATIENCE_S = 600.0  # rows are made with what the budget leaves, of all programs of the machine


class Agent:
    """`flamefleet-agent run`, with what the preset says of the budget or, with `is_unbound`, what
    tests are otherwise run with. `cpus` simulates a host of that many: see many_cpus.py."""

    def __init__(
        self, folder: Path, preset: str, interval_s: float, cpus: int | None, is_unbound: bool
    ) -> None:
        self.spool = Spool(folder / "spool")
        self.spool.create()
        self.batches: list[Batch] = []  # as far as they were read; they are removed like sent ones
        environ = {
            key: text
            for key, text in os.environ.items()
            if is_unbound or "FLAMEFLEET_BUDGET" not in key
        }
        program = ["-m", "node_agent"] if cpus is None else [str(HERE / "many_cpus.py"), str(cpus)]
        options = ["--preset", preset, "--interval", str(interval_s), "--name", "storm"]
        self._log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, *program, "run", *options, "--spool-dir", str(folder / "spool")],
            stderr=self._log,
            env=environ,
        )

    def status(self) -> dict[str, Any]:
        assert self.process.poll() is None, self.log()
        return self.spool.read_status("sampler") or {}

    def take(self) -> list[Batch]:
        """Batches since the last call."""
        taken = []
        for path in sorted(self.spool.root.glob("batches/*.batch")):
            taken.append(decode(path.read_bytes(), Batch))
            path.with_suffix(".defs").unlink(missing_ok=True)
            path.unlink()
        self.batches += taken
        return taken

    def children_ns(self) -> int:
        """CPU time of its children that have ended."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[13]) + int(stat[14])) * 10**9 // os.sysconf("SC_CLK_TCK")

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._log.close()


@pytest.fixture(scope="session")
def storm_programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("storms")
    built = {name: folder / name for name in SOURCES}
    for name, source in SOURCES.items():
        flags = ["-O2", "-fomit-frame-pointer"]
        subprocess.run(["gcc", *flags, "-o", built[name], source], check=True)
    return built


@pytest.fixture
def start_agent(tmp_path: Path) -> Iterator[Callable[..., Agent]]:
    started: list[Agent] = []

    def start(
        preset: str, interval_s: float = 10.0, cpus: int | None = None, is_unbound: bool = False
    ) -> Agent:
        started.append(Agent(tmp_path, preset, interval_s, cpus, is_unbound))
        return started[-1]

    yield start
    for agent in started:
        agent.stop()


@pytest.fixture
def start_load(storm_programs: dict[str, Path]) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    running: list[subprocess.Popen[bytes]] = []

    def start(name: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [storm_programs[name], *arguments]
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        return running[-1]

    yield start
    for process in running:
        process.kill()
    for process in running:
        process.wait()


@pytest.fixture
def watched(tmp_path: Path, storm_programs: dict[str, Path]) -> Iterator[str]:
    """The name of a running program without frame pointers that no other process has."""
    path = tmp_path / f"omit-{uuid4().hex[:8]}"
    shutil.copy(storm_programs["omit"], path)
    process = subprocess.Popen([path])
    yield path.name
    process.kill()
    process.wait()


@pytest.fixture
def ends_of() -> Callable[[list[Batch], str], Counter[str]]:
    """How the user parts of a program's stacks ended: samples by reason."""

    def count(batches: list[Batch], executable: str) -> Counter[str]:
        found: Counter[str] = Counter()
        for batch in batches:
            for reason, column in batch.stack_ends.items():
                for series, samples in zip(batch.series, array("I", column), strict=True):
                    if series.labels.get("executable") == executable:
                        found[reason] += samples
        return found

    return count


@pytest.fixture
def until() -> Callable[[Callable[[], Any], str], Any]:
    """Waits for a condition, minutes if need be."""

    def wait(condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
        limit_s = time.monotonic() + patience_s
        while time.monotonic() < limit_s:
            found = condition()
            if found:
                return found
            time.sleep(0.2)
        raise AssertionError(f"{what} did not happen in {patience_s:.0f} s")

    return wait
