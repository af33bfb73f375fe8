"""`flamefleet up` as its user runs it: another process, a data folder of its own, a free port."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    """wait_until(holds, timeout_s=30): return once `holds()`; fail the test after `timeout_s`."""

    def wait(holds: Callable[[], bool], timeout_s: float = 30.0) -> None:
        limit = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < limit, "waited in vain"
            time.sleep(0.05)

    return wait


@pytest.fixture(scope="session")
def is_alive() -> Callable[[int], bool]:
    """is_alive(pid): whether a process exists and is no zombie."""

    def alive(pid: int) -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        return state not in ("Z", "X")

    return alive


@dataclass
class Up:
    """A running `flamefleet up --json`; its progress goes to the file `said`."""

    data_dir: Path
    port: int
    process: subprocess.Popen[str]
    said: Path
    ready: dict[str, Any] = field(default_factory=dict)

    def wait_ready(self) -> "Up":
        """Read the line of --json, or fail with what was said."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"no ready line:\n{self.said.read_text()}"
        self.ready = json.loads(line)
        return self

    def get(self, path: str, **query: str | int) -> Any:
        """The JSON answer to a GET."""
        with urlopen(f"{self.ready['url'].rstrip('/')}{path}?{urlencode(query)}") as answer:
            return json.load(answer)

    def processes(self) -> dict[str, int]:
        """Process ids of all parts that run now, as `up` itself records them."""
        record = json.loads((self.data_dir / "processes.json").read_text())
        return {name: part["pid"] for name, part in record.items()}

    def finish(self, number: signal.Signals | None = None, timeout_s: float = 90.0) -> int:
        """Send a signal, if one is given, and wait for the exit status."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(timeout_s)


Start = Callable[..., Up]


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def up_command() -> list[str]:
    """The command under test."""
    return [str(Path(sys.executable).with_name("flamefleet")), "up"]


@pytest.fixture
def start_up(tmp_path: Path, up_command: list[str], free_port: int) -> Iterator[Start]:
    """Start `flamefleet up` with more flags; what still runs at the end is stopped."""
    started: list[Up] = []

    def start(*flags: str, data_dir: Path = tmp_path / "data", port: int = free_port) -> Up:
        said = tmp_path / f"said-{len(started)}.txt"
        arguments = ["--json", "--data-dir", str(data_dir), "--port", str(port), *flags]
        with said.open("w") as stream:
            process = subprocess.Popen(
                [*up_command, *arguments],
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                cwd="/",
                env={k: v for k, v in os.environ.items() if "FLAMEFLEET" not in k},
            )
        started.append(Up(data_dir, port, process, said))
        return started[-1]

    yield start
    for up in started:
        if up.process.poll() is None:
            up.process.terminate()
            try:
                up.process.wait(60)
            except subprocess.TimeoutExpired:
                up.process.kill()
                up.process.wait()
        assert up.process.stdout is not None
        up.process.stdout.close()
