"""The agent as an unprivileged user, on a copy of the interpreter that carries capabilities."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from node_agent.spool import Spool

ROOT = Path(__file__).parents[3]
SHARES = ROOT / "tests" / "data" / "programs" / "shares.c"
USER, SHIPPER, SPOOL_GROUP = 61_234, 61_235, 61_236  # nobody else's
FIVE = ("bpf", "perfmon", "sys_ptrace", "dac_read_search", "syslog")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="flamefleet-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def _as_user(user: int) -> list[str]:
    return ["setpriv", f"--reuid={user}", f"--regid={user}", f"--groups={SPOOL_GROUP}"]


class Agent:
    """Runs commands of the agent: as `USER` on a copy of the interpreter with `capabilities` as
    permitted (None: the plain one as root). With `ambient`, on the plain one as in the package's
    unit: ambient capabilities, nothing else in the bounding set, no new privileges."""

    def __init__(
        self,
        folder: Path,
        packages: str,
        capabilities: tuple[str, ...] | None,
        ambient: bool = False,
    ) -> None:
        self.folder = folder
        self.spool_dir = folder / "spool"
        self.spool_dir.mkdir()
        self.spool_dir.chmod(0o2770)
        self._prefix: list[str] = []
        python = Path(sys.executable)
        if capabilities is not None:
            os.chown(self.spool_dir, USER, SPOOL_GROUP)
            self.spool_dir.chmod(0o2770)
            self._prefix = _as_user(USER)
        if capabilities is not None and ambient:
            names = ",".join(f"+{name}" for name in capabilities)
            self._prefix += [f"--inh-caps={names}", f"--ambient-caps={names}"]
            self._prefix += [f"--bounding-set=-all,{names}", "--no-new-privs"]
        elif capabilities is not None:
            python = folder / "python"
            shutil.copy(Path(sys.executable).resolve(), python)
            os.chown(python, 0, USER)  # as the package does: nobody else may run it
            python.chmod(0o750)
            if capabilities:
                names = ",".join(f"cap_{name}" for name in capabilities)
                subprocess.run(["setcap", f"{names}=p", str(python)], check=True)
        code = (
            f"import sys; sys.path.insert(0, {packages!r})\n"
            "from node_agent.cli import main; sys.exit(main(sys.argv[1:]))"
        )
        self._command = [*self._prefix, str(python), "-I", "-c", code]
        self._running: list[subprocess.Popen[str]] = []

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [*self._command, *arguments], capture_output=True, text=True, check=False, timeout=600
        )

    def run(self, interval_s: float = 1.0) -> subprocess.Popen[str]:
        """Start the sampler."""
        options = ["--spool-dir", str(self.spool_dir), "--preset", "debug"]
        environ = {**os.environ, "FLAMEFLEET_INTERVAL_S": str(interval_s)}
        process = subprocess.Popen(
            [*self._command, "run", *options], stderr=subprocess.PIPE, text=True, env=environ
        )
        self._running.append(process)
        return process

    def as_shipper(self, code: str, *arguments: str) -> str:
        """Run Python code as the other user of the spool; what it printed."""
        command = [*_as_user(SHIPPER), "/usr/bin/python3", "-I", "-c", code, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status(self) -> dict[str, Any]:
        """What the sampler wrote about itself."""
        path = self.spool_dir / "status" / "sampler.json"
        try:
            return json.loads(path.read_bytes())  # type: ignore[no-any-return]  # JSON
        except (FileNotFoundError, ValueError):
            return {}

    def spool(self) -> Spool:
        spool = Spool(self.spool_dir)
        spool.create()
        return spool

    def wait_for(self, condition: Callable[[dict[str, Any]], Any], what: str) -> Any:
        """Wait until `condition` of the status is true; its value."""
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            found = condition(self.status())
            if found:
                return found
            for process in self._running:
                if process.poll() is not None:
                    raise AssertionError(f"the sampler ended: {process.communicate()[1]}")
            time.sleep(0.1)
        raise AssertionError(f"{what} did not happen: {self.status()}")

    def stop(self) -> str:
        """End the sampler; what it wrote to standard error."""
        process = self._running.pop()
        process.send_signal(signal.SIGTERM)
        words = process.communicate(timeout=600)[1]
        assert process.returncode == 0, words
        return words

    def kill(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.kill()
                process.communicate()


@pytest.fixture
def make_agent(open_folder: Path, open_packages: str) -> Iterator[Callable[..., Agent]]:
    """Makes an Agent; its sampler ends with the test."""
    if os.geteuid() != 0 or not (shutil.which("setpriv") and shutil.which("setcap")):
        pytest.skip("needs root, setpriv and setcap to make an interpreter with capabilities")
    made: list[Agent] = []

    def make(capabilities: tuple[str, ...] | None = FIVE, ambient: bool = False) -> Agent:
        made.append(Agent(open_folder, open_packages, capabilities, ambient))
        return made[-1]

    yield make
    for agent in made:
        agent.kill()


@pytest.fixture
def closed_program(open_folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A busy program of root in a folder that only root may enter."""
    folder = open_folder / "closed"
    folder.mkdir(mode=0o700)
    path = folder / "guarded"  # a name that no other test uses
    flags = ["-O1", "-fno-omit-frame-pointer", f"-Wl,--build-id=0x{os.urandom(20).hex()}"]
    subprocess.run(["gcc", *flags, "-o", path, SHARES], check=True)
    path.chmod(0o700)
    process = subprocess.Popen([path])
    yield process
    process.kill()
    process.wait()
