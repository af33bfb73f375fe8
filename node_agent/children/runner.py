"""Runs the sampler's children: one at a time over all kinds of work, and within their ration.

One child does several jobs, because starting it costs more than most of them. A job that ends its
child costs only itself: those before it are done, those after it are tried again.
"""

import json
import math
import os
import signal
import time
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from node_agent.children.command import child_command, end_child
from node_agent.children.ration import Ration
from node_agent.children.turns import Turns
from node_agent.faults import Faults
from node_agent.kernel.cpus import online_cpus

START_S = 0.03  # CPU time that starting a child takes
ENOUGH_S = 0.08  # CPU time of jobs that makes the start worth it where more is waiting
MAX_FACTOR = 8.0  # by which jobs may cost more, or less, than was estimated


class Task(NamedTuple):
    """What one child is started for.

    `module`: its `main` does the `jobs`, JSON objects with an estimate `cost_s`, in their order.
    `descriptors` are inherited under their numbers. After `wall_s` it is ended.
    """

    module: str
    jobs: list[dict[str, Any]]
    descriptors: list[int]
    wall_s: float


class Work(Protocol):
    """One kind of work for children."""

    name: str
    rank: int  # the lowest comes first, those of the same take turns

    @property
    def pending(self) -> int:
        """Jobs that are not finished yet."""

    def costs(self) -> list[float]:
        """CPU seconds that the jobs of the next task probably take; none: nothing waits."""

    def begin(self) -> Task | None:
        """Take the next task out of what waits; None when nothing was left of it."""

    def finish(self, done: int, fault: str) -> None:
        """The task's child has ended, or there was none. Its first `done` jobs are done; where
        `fault` says something the next one has ended the child. The others wait again."""


class _Child(NamedTuple):
    work: Work
    task: Task
    pid: int
    done: int  # a file with a byte for every job that is done
    started_at: float


class Children:
    """`add` kinds of work, call `step` now and then. Without a ration nothing is held back.
    `faults` is the boundary around each job, for the kinds of work to use."""

    def __init__(self, ration: Ration | None = None, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.cpu_s = 0.0  # used by children that have ended
        self.started = 0
        self._ration = ration or Ration(None, len(online_cpus()), time.monotonic())
        self._works: list[Work] = []
        self._turns = Turns()
        self._child: _Child | None = None
        self._factor = 1.0  # by which this machine is slower than the estimates
        self._noted_s = 0.0

    def add(self, work: Work) -> None:
        """Do this kind of work too."""
        self._works.append(work)

    @property
    def pending(self) -> int:
        """Jobs of all kinds that are not finished yet."""
        return sum(work.pending for work in self._works)

    def wait_s(self) -> float:
        """How long `step` will have nothing to do: the end of a child, which SIGCHLD tells, comes
        earlier perhaps, and so may new work. Infinity where only that can come."""
        waiting = [(work.rank, costs) for work in self._works if (costs := work.costs())]
        if self._child is not None or not waiting:
            return math.inf
        now_s = time.monotonic()
        rank = min(rank for rank, _ in waiting)
        wanted_s = max(self._wanted_s(costs) for other, costs in waiting if other == rank)
        return self._ration.wait_s(min(wanted_s, self._ration.depth_s(now_s)), now_s)

    def step(self) -> None:
        """Collect a child that has ended, start the next. Never waits."""
        if self._child is not None and not self._collect(self._child):
            return
        now_s = time.monotonic()
        left_s, depth_s = self._ration.left_s(now_s), self._ration.depth_s(now_s)
        if left_s <= 0:
            return
        waiting = {work.name: (work, costs) for work in self._works if (costs := work.costs())}
        while waiting:
            name = self._turns.next([(work.rank, name) for name, (work, _) in waiting.items()])
            work, costs = waiting.pop(name)
            if left_s < min(self._wanted_s(costs), depth_s):
                return  # whose turn it is is not overtaken
            task = work.begin()
            if task is not None:
                self._start(work, task, left_s)
                return

    def end(self, work: Work) -> None:
        """End the child that does this work, if there is one: as if it had done nothing."""
        child = self._child
        if child is not None and child.work is work:
            self._child = None
            end_child(child.pid)
            os.close(child.done)
            work.finish(0, "")

    def note_own(self, cpu_percent: float, duration_ns: int) -> None:
        """What the agent cost in the interval that has ended, percent of the host, its children
        included."""
        cpus = len(online_cpus())
        spent_s, self._noted_s = self.cpu_s - self._noted_s, self.cpu_s
        children_percent = 100 * spent_s / (cpus * max(duration_ns, 1) / 1e9)
        self._ration.note_own(max(cpu_percent - children_percent, 0.0), cpus)

    def status(self) -> dict[str, Any]:
        """For the status file: `left_s` and `share_percent` (of the host) are the ration."""
        now_s = time.monotonic()
        return {
            "running": self._child.work.name if self._child is not None else "",
            "pending": {work.name: work.pending for work in self._works},
            "started": self.started,
            "cpu_s": round(self.cpu_s, 3),
            "left_s": round(self._ration.left_s(now_s), 3),
            "share_percent": round(self._ration.share_percent(now_s), 3),
        }

    def _wanted_s(self, costs: list[float]) -> float:
        """What has to be left for a child to be started for jobs of these costs."""
        return (START_S + max(costs[0], min(sum(costs), ENOUGH_S))) * self._factor

    def _start(self, work: Work, task: Task, left_s: float) -> None:
        done = -1
        try:
            done = os.memfd_create("jobs done", os.MFD_CLOEXEC)
            jobs = [{**job, "cost_s": job["cost_s"] * self._factor} for job in task.jobs]
            pid = _spawn(task._replace(jobs=jobs), left_s, done)
        except OSError as error:
            if done >= 0:
                os.close(done)
            work.finish(0, f"no child could be started: {error.strerror}")
            return
        self._child = _Child(work, task, pid, done, time.monotonic())
        self.started += 1

    def _collect(self, child: _Child) -> bool:
        """Whether the child has ended."""
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid == 0:
            if time.monotonic() - child.started_at > child.task.wall_s:
                with suppress(PermissionError):  # its own alarm ends it
                    os.kill(child.pid, signal.SIGKILL)
            return False
        self._child = None
        done = min(os.fstat(child.done).st_size, len(child.task.jobs))
        os.close(child.done)
        used_s = usage.ru_utime + usage.ru_stime
        self.cpu_s += used_s
        self._ration.pay(used_s)
        self._turns.pay(child.work.name, used_s)
        self._learn(child, done, used_s)
        code = os.waitstatus_to_exitcode(status)
        fault = f"signal {-code}" if code < 0 else f"exit status {code}"
        is_broken = done < len(child.task.jobs) and (code != 0 or done == 0)
        child.work.finish(done, f"the reader of the file ended with {fault}" if is_broken else "")
        return True

    def _learn(self, child: _Child, done: int, used_s: float) -> None:
        estimate_s = START_S + sum(job["cost_s"] for job in child.task.jobs[:done])
        if done:
            factor = (self._factor + used_s / estimate_s) / 2
            self._factor = min(max(factor, 1 / MAX_FACTOR), MAX_FACTOR)


def _spawn(task: Task, limit_s: float, done: int) -> int:
    """Start a child that inherits just the descriptors of its task."""
    inherited = [*task.descriptors, done]
    for descriptor in inherited:
        os.set_inheritable(descriptor, True)
    try:
        arguments = [json.dumps(task.jobs), f"{limit_s:.3f}", str(done)]
        command = child_command(task.module, arguments)
        return os.posix_spawn(command[0], command, {}, setsigmask=())
    finally:
        for descriptor in inherited:
            os.set_inheritable(descriptor, False)
