"""Keeps the local parts running: starts them again when they die, and stops them in order.

One thread, no callbacks: the owner calls `tick` every fraction of a second.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from aggregator.local.errors import StartError
from aggregator.local.process import Command, Process
from aggregator.local.reasons import last_error, last_reason
from wire.called_as import as_called

FIRST_DELAY_S = 0.2
MOST_DELAY_S = 15.0
# A part that lived this long starts again with the first delay.
STEADY_S = 30.0
# A log that is larger when its part is added is set aside, over the one before it.
MOST_LOG_BYTES = 10 << 20
# So many deaths in a row are no accident.
MOST_FAILURES = 4
_TAIL_BYTES = 2_000


def restart_delay_s(failures: int) -> float:
    """Seconds to wait before start number `failures` + 1: doubling up to MOST_DELAY_S."""
    return min(FIRST_DELAY_S * 2.0 ** min(failures - 1, 16), MOST_DELAY_S)


@dataclass
class _Part:
    command: Command
    may_start: Callable[[], bool]
    log: IO[bytes]
    process: Process | None = None
    log_from: int = 0  # bytes of the log that were there before the last start
    failures: int = 0  # deaths in a row, each soon after its start
    next_start: float = 0.0
    told: str = ""  # of the last death


class Supervisor:
    """The parts by name, in the order in which they were added.

    `say` gets one line for every death and restart. `record` is a file that lists the running
    processes for the next start, in case this one is killed.
    """

    def __init__(self, logs: Path, record: Path, say: Callable[[str], None]) -> None:
        self._logs = logs
        self._record = record
        self._say = say
        self._parts: dict[str, _Part] = {}

    def add(self, command: Command, may_start: Callable[[], bool] = lambda: True) -> Process:
        """Start `command` and keep it running. `may_start` is asked before every later start."""
        path = self._log_path(command.name)
        if path.exists() and path.stat().st_size > MOST_LOG_BYTES:
            path.replace(path.with_suffix(".log.old"))
        log = path.open("ab")
        part = self._parts[command.name] = _Part(command, may_start, log)
        return self._start(part)

    def pid(self, name: str) -> int | None:
        """Process id of a part, None while it is down."""
        process = self._parts[name].process
        return None if process is None else process.pid

    def runs(self, name: str) -> bool:
        """Whether a part was added, not stopped, and is up now."""
        part = self._parts.get(name)
        return part is not None and part.process is not None and part.process.poll() is None

    def tick(self) -> None:
        """Notice the parts that died and start those whose time has come."""
        now = time.monotonic()
        for name, part in self._parts.items():
            if part.process is not None:
                status = part.process.poll()
                if status is None:
                    continue
                steady = now - part.process.started_at > STEADY_S
                part.failures = 1 if steady else part.failures + 1
                part.process = None
                delay_s = restart_delay_s(part.failures)
                part.next_start = now + delay_s
                self._tell_death(name, part, status, delay_s)
            if now >= part.next_start and part.may_start():
                process = self._start(part)
                self._say(f"{name} runs again as process {process.pid}")

    def _tell_death(self, name: str, part: _Part, status: int, delay_s: float) -> None:
        """How and why a part ended. What is told again and again is short."""
        words = f"{describe_exit(status)}: {self._reason(name)}"
        again = f"starting it again in {delay_s:.1f} s"
        if words == part.told:
            self._say(f"{name} {describe_exit(status)} for the same reason; {again}")
        else:
            self._say(f"{name} {words}\n  its log: {self._log_path(name)}; {again}")
        part.told = words

    def stop(self, name: str, wait_s: float | None = None) -> None:
        """End a part for good; a second call does nothing."""
        part = self._parts.pop(name, None)
        if part is None:
            return
        if part.process is not None and not part.process.stop(wait_s):
            self._say(f"{name} did not stop in time and was killed")
        part.log.close()
        self._write_record()

    def log_tail(self, name: str) -> str:
        """The last lines of a part's log, for an error message."""
        path = self._log_path(name)
        data = path.read_bytes()[-_TAIL_BYTES:] if path.exists() else b""
        lines = data.decode(errors="replace").strip().split("\n")[-12:]
        return "\n".join(f"  {line}" for line in lines) + f"\n  (all of it: {path})"

    def troubles(self) -> str:
        """The last error that each part has logged since its start, and where the logs are."""
        errors = {name: last_error(self._logged(name)) for name in self._parts}
        lines = [f"  {name}: {as_called(error)}" for name, error in errors.items() if error]
        return "\n".join([*(lines or ["  no part has logged an error"]), f"  logs: {self._logs}"])

    def require_all(self) -> None:
        """Raise StartError with the log's end if a part keeps dying soon after its start."""
        for name, part in self._parts.items():
            if part.failures >= MOST_FAILURES:
                raise StartError(f"{name} does not stay up:\n{self.log_tail(name)}")

    @contextmanager
    def explained(self, name: str) -> Iterator[None]:
        """Add the reason in a part's log to a StartError."""
        try:
            yield
        except StartError as error:
            reason = self._reason(name)
            raise StartError(f"{error}: {reason}\n  its log: {self._log_path(name)}") from error

    def _reason(self, name: str) -> str:
        """Why a part ended, as it has logged."""
        return as_called(last_reason(self._logged(name))) or "it logged no reason"

    def _logged(self, name: str) -> str:
        """The end of what a part has logged since its last start."""
        path = self._log_path(name)
        with path.open("rb") as log:
            log.seek(max(self._parts[name].log_from, path.stat().st_size - _TAIL_BYTES))
            return log.read().decode(errors="replace")

    def _log_path(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _start(self, part: _Part) -> Process:
        part.log_from = os.fstat(part.log.fileno()).st_size
        part.process = Process(part.command, part.log.fileno())
        self._write_record()
        return part.process

    def _write_record(self) -> None:
        running = {
            name: {"pid": part.process.pid, "started": start_ticks(part.process.pid)}
            for name, part in self._parts.items()
            if part.process is not None
        }
        new = self._record.with_suffix(".new")
        new.write_text(json.dumps(running))
        new.replace(self._record)


def describe_exit(status: int) -> str:
    """Words for an exit status as `Process.poll` gives it."""
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def start_ticks(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot (proc(5), field 22), None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = text.rpartition(b")")[2].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])
