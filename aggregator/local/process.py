"""One child process: started through `launch.py`, stopped by its signal and then by force."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from aggregator.local.account import Account, blocked_ancestor
from aggregator.local.errors import StartError

_LAUNCH = Path(__file__).with_name("launch.py")


@dataclass(frozen=True)
class Command:
    """What to execute and how to end it.

    `folders` are what `account` must be able to reach whatever lies above them. With
    `keeps_capabilities` it stays who we are, in `group` too where one is given.
    """

    name: str
    argv: tuple[str, ...]
    account: Account | None = None
    folders: tuple[Path, ...] = ()
    keeps_capabilities: bool = False
    group: int | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_wait_s: float = 30.0


def _environment() -> dict[str, str]:
    """Ours without FLAMEFLEET_*: the parts are told by files, and by nothing else."""
    return {name: value for name, value in os.environ.items() if not name.startswith("FLAMEFLEET_")}


def launch_argv(command: Command) -> list[str]:
    """The command line that runs `command` as its account, tied to this process's life."""
    argv = [sys.executable, "-I", "-S", str(_LAUNCH), "--parent", str(os.getpid())]
    argv += ["--death-signal", str(int(command.stop_signal))]
    if command.keeps_capabilities:
        argv.append("--keep-capabilities")
    if command.group is not None:
        argv += ["--group", str(command.group)]
    account = command.account
    if account is not None:
        argv += ["--uid", str(account.uid), "--gid", str(account.gid)]
        closed = {blocked_ancestor(folder, account) for folder in command.folders}
        blocked = sorted(str(folder) for folder in closed if folder is not None)
        if blocked:
            argv += [f"--expose={folder}" for folder in command.folders]
            argv += [f"--blocked={folder}" for folder in blocked]
    return [*argv, "--", *command.argv]


class Process:
    """A running `Command`. Start it in a thread that lives as long: its end would end the child."""

    def __init__(self, command: Command, log: IO[bytes] | int) -> None:
        self.command = command
        self._popen = subprocess.Popen(
            launch_argv(command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(),
            cwd="/",
            start_new_session=True,  # Ctrl-C in the terminal goes to the parent alone
        )
        self.started_at = time.monotonic()

    @property
    def pid(self) -> int:
        return self._popen.pid

    def poll(self) -> int | None:
        """Exit status (negative: ended by that signal), or None while it runs."""
        return self._popen.poll()

    def stop(self, wait_s: float | None = None) -> bool:
        """Send the stop signal, wait, then kill. True if it went without being killed."""
        if self._popen.poll() is None:
            self._popen.send_signal(self.command.stop_signal)
        try:
            self._popen.wait(self.command.stop_wait_s if wait_s is None else wait_s)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
            return False
        return True


def wait_for_answer(
    process: Process,
    name: str,
    answers: Callable[[], bool],
    timeout_s: float,
    idle: Callable[[float], None] = time.sleep,
) -> None:
    """Return when the server `name` answers; `idle` passes the time between tries.

    Raises StartError when its process ends or it takes too long.
    """
    limit = time.monotonic() + timeout_s
    while not answers():
        if process.poll() is not None:
            raise StartError(f"{name} ended with status {process.poll()}")
        if time.monotonic() > limit:
            raise StartError(f"{name} did not answer in {timeout_s:.0f} s")
        idle(0.05)


def run_to_end(command: Command, timeout_s: float = 300.0) -> tuple[int, str]:
    """Exit status and output of `command`. Raises StartError when it takes longer."""
    try:
        done = subprocess.run(
            launch_argv(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(),
            cwd="/",
            start_new_session=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StartError(f"{command.name} did not end within {timeout_s:.0f} s") from None
    return done.returncode, done.stdout.decode(errors="replace").strip()


def run_once(command: Command) -> str:
    """Run `command` to its end and return its output. Raises StartError when it fails."""
    status, output = run_to_end(command)
    if status != 0:
        raise StartError(f"{command.name} failed with status {status}:\n{output}")
    return output
