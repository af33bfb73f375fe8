"""Asks a child process what an interpreter's file says; never waits for it."""

import os
from collections import deque
from typing import NamedTuple

from node_agent.children.runner import Children, Task
from node_agent.cpython.child import MAX_ANSWER_BYTES, WALL_S, parse_answer
from node_agent.cpython.interpreter import Interpreter

MAX_QUEUED = 64
MAX_AT_ONCE = 8  # files a child
COST_S = 0.03  # CPU time of a file
_CHILD = "node_agent.cpython.child"
_NONSENSE = "the reader of the file wrote nonsense"


class _Request(NamedTuple):
    build: int
    descriptor: int
    name: str


class _Job(NamedTuple):
    """A request under way: the child writes to a file in memory, `output`."""

    request: _Request
    output: int


class Inspector:
    """`request` files, call `step` now and then; each build is answered once, by `children`."""

    name = "python"
    rank = 0  # little work, and all Python frames wait for it

    def __init__(self, children: Children | None = None) -> None:
        self._queue: deque[_Request] = deque()
        self._jobs: list[_Job] = []
        self._answers: list[tuple[int, Interpreter | str]] = []
        self._children = children or Children()
        self._children.add(self)

    def request(self, build: int, descriptor: int, name: str) -> bool:
        """Ask about an open file, which belongs to the inspector from now on. False when too many
        wait."""
        if len(self._queue) >= MAX_QUEUED:
            os.close(descriptor)
            return False
        self._queue.append(_Request(build, descriptor, name))
        return True

    @property
    def pending(self) -> int:
        """Requests without an answer yet."""
        return len(self._queue) + len(self._jobs) + len(self._answers)

    def step(self) -> list[tuple[int, Interpreter | str]]:
        """Answers that have come: the interpreter, or why its frames can't be read."""
        self._children.step()
        answers, self._answers = self._answers, []
        return answers

    def costs(self) -> list[float]:
        """See node_agent.children.runner.Work, also for `begin` and `finish`."""
        return [COST_S] * min(len(self._queue), MAX_AT_ONCE)

    def begin(self) -> Task | None:
        while self._queue and len(self._jobs) < MAX_AT_ONCE:
            try:
                output = os.memfd_create("interpreter", os.MFD_CLOEXEC)
            except OSError:
                break  # tried again when there is room
            self._jobs.append(_Job(self._queue.popleft(), output))
        if not self._jobs:
            return None
        asked = [
            {
                "fd": job.request.descriptor,
                "name": job.request.name,
                "output": job.output,
                "cost_s": COST_S,
            }
            for job in self._jobs
        ]
        descriptors = [fd for job in self._jobs for fd in (job.request.descriptor, job.output)]
        return Task(_CHILD, asked, descriptors, WALL_S)

    def finish(self, done: int, fault: str) -> None:
        jobs, self._jobs = self._jobs, []
        again: list[_Request] = []
        for number, job in enumerate(jobs):
            request = job.request
            if number > done or (number == done and not fault):
                again.append(request)
            else:
                answer = self._answer(job) if number < done else fault
                self._answers.append((request.build, answer))
                os.close(request.descriptor)
            os.close(job.output)
        self._queue.extendleft(reversed(again))

    def close(self) -> None:
        """End a running child; what was asked stays without an answer."""
        self._children.end(self)
        for request in self._queue:
            os.close(request.descriptor)
        self._queue.clear()

    def _answer(self, job: _Job) -> Interpreter | str:
        key = ("answer", job.request.build)
        contain = self._children.faults.contain
        return contain("interpreter", key, lambda: _read(job)) or _NONSENSE


def _read(job: _Job) -> Interpreter | str:
    try:
        return parse_answer(os.pread(job.output, MAX_ANSWER_BYTES, 0))
    except ValueError:
        return _NONSENSE
