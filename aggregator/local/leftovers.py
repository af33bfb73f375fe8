"""Nothing is left running: not by an earlier `flamefleet up` that was killed, and not by this one.

The parts of a killed one get their stop signal from the kernel and may need a moment; one that
hangs is killed. What the parts of this one leave behind (a worker's pool, a symbol reader) becomes
our child, because we are its "subreaper" (prctl(2)).
"""

import ctypes
import json
import os
import signal
import time
from pathlib import Path

from aggregator.local.supervisor import start_ticks

WAIT_S = 10.0
_PR_SET_CHILD_SUBREAPER = 36


def settle(record: Path, wait_s: float = WAIT_S) -> list[str]:
    """Return when none of the processes in `record` lives, killing them after `wait_s`.

    Gives the names of those that had to be killed. A process id that was given to another program
    since is told by its start time.
    """
    try:
        parts = json.loads(record.read_text())
    except (OSError, ValueError):
        return []
    limit = time.monotonic() + wait_s
    killed: list[str] = []
    while alive := {name: part for name, part in parts.items() if _lives(part)}:
        if time.monotonic() > limit and not killed:
            for name, part in alive.items():
                os.kill(part["pid"], signal.SIGKILL)
                killed.append(name)
        time.sleep(0.05)
    record.unlink(missing_ok=True)
    return killed


def _lives(part: dict[str, int]) -> bool:
    return start_ticks(part["pid"]) == part["started"]


def adopt_orphans() -> None:
    """From now on processes that lose their parent below us become our children."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0)


def end_orphans() -> int:
    """Kill and reap every child that is left; the number of those that were still running."""
    ended = 0
    while children := _children():
        for pid, running in children:
            if running:
                os.kill(pid, signal.SIGKILL)
                ended += 1
            os.waitpid(pid, 0)
    return ended


def _children() -> list[tuple[int, bool]]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            # Anybody's name is in it, which need not be text.
            state, parent = (process / "stat").read_bytes().rpartition(b")")[2].split()[:2]
        except OSError:
            continue  # ended meanwhile
        if int(parent) == os.getpid():
            found.append((int(process.name), state not in (b"Z", b"X")))
    return found
