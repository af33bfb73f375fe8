"""Asks a child process what an interpreter's file says; never waits for it."""

import json
import os
import signal
import time
from collections import deque
from contextlib import suppress
from typing import NamedTuple

from node_agent.cpython.child import parse_answer
from node_agent.cpython.interpreter import Interpreter
from node_agent.symbols.children import child_command, end_child

MAX_QUEUED = 64
TIMEOUT_S = 60.0
MAX_ANSWER_BYTES = 64 << 10
_CHILD = "node_agent.cpython.child"


class _Request(NamedTuple):
    build: int
    descriptor: int
    name: str


class _Child(NamedTuple):
    pid: int
    output: int  # the reading end of its standard output, non-blocking
    builds: list[int]
    started_at: float
    answer: bytearray


class Inspector:
    """`request` files, call `step` now and then; each build is answered once."""

    def __init__(self) -> None:
        self._queue: deque[_Request] = deque()
        self._child: _Child | None = None

    def request(self, build: int, descriptor: int, name: str) -> bool:
        """Ask about an open file, which belongs to the inspector from now on. False when too many
        wait."""
        if len(self._queue) >= MAX_QUEUED:
            os.close(descriptor)
            return False
        self._queue.append(_Request(build, descriptor, name))
        return True

    def step(self) -> list[tuple[int, Interpreter | str]]:
        """Answers that have come: the interpreter, or why its frames can't be read."""
        answers = self._collect(self._child) if self._child is not None else []
        if self._child is None and self._queue:
            requests = list(self._queue)
            self._queue.clear()
            try:
                self._child = _start(requests)
            except OSError as error:
                reason = f"no child could be started: {error.strerror}"
                answers += [(request.build, reason) for request in requests]
            finally:
                for request in requests:
                    os.close(request.descriptor)
        return answers

    def close(self) -> None:
        """End a running child; what was asked stays without an answer."""
        for request in self._queue:
            os.close(request.descriptor)
        self._queue.clear()
        child, self._child = self._child, None
        if child is not None:
            os.close(child.output)
            end_child(child.pid)

    def _collect(self, child: _Child) -> list[tuple[int, Interpreter | str]]:
        """What the child answered, once it has ended."""
        _drain(child)
        pid, status = os.waitpid(child.pid, os.WNOHANG)
        if pid == 0:
            if time.monotonic() - child.started_at > TIMEOUT_S:
                with suppress(PermissionError):  # its own alarm ends it
                    os.kill(child.pid, signal.SIGKILL)
            return []
        _drain(child)
        os.close(child.output)
        self._child = None
        code = os.waitstatus_to_exitcode(status)
        lines = bytes(child.answer).split(b"\n")[:-1]
        answers: list[tuple[int, Interpreter | str]] = []
        for index, build in enumerate(child.builds):
            reason = f"the reader of its file ended with {code}"
            try:
                answers.append((build, parse_answer(lines[index])))
            except (IndexError, ValueError):
                answers.append((build, reason))
        return answers


def _start(requests: list[_Request]) -> _Child:
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        os.set_blocking(writing, True)
        for request in requests:
            os.set_inheritable(request.descriptor, True)
        words = [{"fd": request.descriptor, "name": request.name} for request in requests]
        command = child_command(_CHILD, [json.dumps(words)])
        actions = [(os.POSIX_SPAWN_DUP2, writing, 1)]
        pid = os.posix_spawn(command[0], command, {}, file_actions=actions, setsigmask=())
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    builds = [request.build for request in requests]
    return _Child(pid, reading, builds, time.monotonic(), bytearray())


def _drain(child: _Child) -> None:
    while len(child.answer) < MAX_ANSWER_BYTES:  # a child that says more has gone astray
        try:
            data = os.read(child.output, MAX_ANSWER_BYTES)
        except BlockingIOError:
            return
        if not data:
            return
        child.answer.extend(data)
