"""A real process with a program of its own, and its mapping."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from node_agent.processes.mappings import Mapping, Mappings, read_mappings, read_start_ticks

TICK_NS = 10_000_000


class Sleeper(NamedTuple):
    process: subprocess.Popen[bytes]
    path: Path

    @property
    def start_ns(self) -> int:
        return read_start_ticks(self.process.pid) * TICK_NS

    def mappings(self) -> Mappings:
        return read_mappings(self.process.pid, self.start_ns)

    def mapping(self) -> Mapping:
        """The executable mapping of the program itself."""
        [found] = [m for m in self.mappings().entries if m.inode == self.inode]
        return found

    @property
    def inode(self) -> int:
        return Path(f"/proc/{self.process.pid}/exe").stat().st_ino


@pytest.fixture
def sleeper(
    tmp_path: Path, await_program: Callable[[subprocess.Popen[bytes]], None]
) -> Iterator[Sleeper]:
    """A copy of sleep whose name has spaces and brackets in it, as a hostile one may."""
    path = tmp_path / "a) R (b"
    shutil.copy("/bin/sleep", path)
    process = subprocess.Popen([path, "600"])
    await_program(process)
    yield Sleeper(process, path)
    process.kill()
    process.wait()
