"""The breaker at work: remembers runs in a file, looks into the kernel's log.

The file is in a folder that only the sampler's user may enter (a systemd unit's STATE_DIRECTORY,
else beside the spool): who could write it could keep the agent from sampling.
"""

import errno
import json
import os
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from node_agent.breaker import Opened, Running, Situation, State, from_json, judge, reset, to_json
from node_agent.capabilities import KERNEL_SYMBOLS, using
from node_agent.config import AgentConfig
from node_agent.kernel.errors import KernelListError, KernelLogError
from node_agent.kernel.known_bad import find_bad, read_list, running_version
from node_agent.kernel.log import (
    Message,
    find_complaint,
    newest,
    parse_messages,
    read_kernel_log,
    was_killed,
)
from node_agent.log import Log
from node_agent.processes.errors import ProcessGoneError
from node_agent.processes.mappings import read_start_ticks

_FILE = "breaker.json"
_MAX_BYTES = 64 << 10
_NO_LOG = -1.0  # instead of a time in the kernel's log that could not be read


def state_folder(config: AgentConfig, environ: Mapping[str, str]) -> Path:
    """Where the sampler keeps what only it may write."""
    given = environ.get("STATE_DIRECTORY", "").split(":")[0]
    return Path(given) if given else config.spool_dir / "sampler"


class _Log(NamedTuple):
    messages: list[Message]
    raw: bytes


class Watch:
    """One run's view of the breaker. Trouble with the file is said and is no reason to stop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.file = folder / _FILE
        self._state = State()
        self._raw = b""
        self._log_at = _NO_LOG
        self._own_log = Log("run")
        self.is_heir_of_killed = False  # the run before was ended by the kernel's OOM killer
        self.log_trouble = ""  # why the kernel's log cannot be watched; empty when it can

    def begin(self, is_reset: bool = False) -> Opened | None:
        """Remember that a run begins, unless something keeps the agent detached: the answer."""
        state = self._read()
        kernel, boot_id = os.uname().release, _boot_id()
        if is_reset:
            state = reset(state, kernel)
        log = self._read_log()
        previous = state.running
        is_alive = previous is not None and _is_alive(previous)
        complaint = ""
        if log is not None:
            self._log_at = newest(log.messages)
            ended = previous if previous and not is_alive and not is_reset else None
            if ended and ended.boot_id == boot_id and ended.log_at != _NO_LOG:
                complaint = find_complaint(log.messages, ended.log_at)
                self.is_heir_of_killed = was_killed(log.messages, ended.pid, ended.log_at)
        if is_reset and not is_alive:
            state = replace(state, running=None)
        found = Situation(time.time(), boot_id, kernel, is_alive, _bad_kernel(), complaint)
        self._state = judge(state, found)
        if self._state.opened is None and not is_alive:
            own = Running(os.getpid(), read_start_ticks(os.getpid()), boot_id, self._log_at)
            self._state = replace(self._state, running=own)
        self._write()
        return self._state.opened

    def look(self) -> Opened | None:
        """Has the kernel complained since the run began? Then the breaker is open."""
        log = self._read_log() if self._log_at != _NO_LOG else None
        if log is None or log.raw == self._raw:
            return None
        self._raw = log.raw
        complaint = find_complaint(log.messages, self._log_at)
        if not complaint:
            return None
        found = Situation(time.time(), _boot_id(), os.uname().release, True, "", complaint)
        self._state = judge(self._state, found)
        self._write()
        return self._state.opened

    def was_killed(self, pid: int) -> bool:
        """Whether another process was killed for want of memory since the run began."""
        if self._log_at == _NO_LOG:
            return False
        try:
            with using(*KERNEL_SYMBOLS):
                messages = parse_messages(read_kernel_log())
        except KernelLogError:
            return False
        return was_killed(messages, pid, self._log_at)

    def end(self) -> None:
        """The run ends in order."""
        running = self._state.running
        if running is not None and running.pid == os.getpid():
            self._state = replace(self._state, running=None)
            self._write()

    def _read_log(self) -> _Log | None:
        try:
            with using(*KERNEL_SYMBOLS):
                raw = read_kernel_log()
        except KernelLogError as error:
            self.log_trouble = f"{error}; its complaints about BPF or perf go unnoticed"
            return None
        if raw == self._raw:
            return _Log([], raw)
        return _Log(parse_messages(raw), raw)

    def _read(self) -> State:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(self.file, flags)
        except FileNotFoundError:
            return State()
        except OSError as error:
            return self._without(error.strerror or str(error))
        with os.fdopen(fd, "rb") as file:
            facts = os.fstat(fd)
            if not stat.S_ISREG(facts.st_mode) or facts.st_uid not in (0, os.geteuid()):
                return self._without("it is another user's")
            try:
                return from_json(json.loads(file.read(_MAX_BYTES)))
            except ValueError as error:
                return self._without(str(error))

    def _without(self, reason: str) -> State:
        self._own_log.warning("breaker", f"the breaker starts anew: {self.file}: {reason}")
        return State()

    def _write(self) -> None:
        path, draft = self.file, self.file.with_suffix(".new")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                draft.unlink()
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "w") as file:
                json.dump(to_json(self._state), file)
                file.flush()
                os.fsync(fd)  # it must outlive the machine's crash too
            draft.replace(path)
        except OSError as error:
            words = f"the breaker cannot remember this run: {path}: {error.strerror}"
            is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            remedy = "Free disk space there." if is_full else f"Make {self._folder} writable."
            self._own_log.error("breaker", words, remedy=remedy)


def _is_alive(running: Running) -> bool:
    if running.boot_id != _boot_id() or running.pid == os.getpid():
        return False
    try:
        return read_start_ticks(running.pid) == running.start_ticks
    except ProcessGoneError:
        return False


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _bad_kernel() -> str:
    try:
        return find_bad(running_version(), read_list())
    except KernelListError as error:
        Log("run").warning("breaker", str(error))
        return ""
