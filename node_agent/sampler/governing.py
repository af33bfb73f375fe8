"""The governor at work: measures, decides, changes what the sampler does, and says so."""

import resource
import sys
import time
from collections import deque
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from node_agent.capabilities import KERNEL_PROGRAMS, using
from node_agent.collectors.stacks import Interval
from node_agent.config import AgentConfig
from node_agent.kernel.cpus import online_cpus
from node_agent.kernel.errors import KernelError
from node_agent.overhead.governor import Budget, Cost, Governor, Step
from node_agent.sampler.facts import clip
from wire.schema import Overhead

MAX_STEPS = 20  # remembered for the status


class Adjustable(Protocol):
    """What can be changed while it samples (see node_agent.collectors.cpu.CpuCollector)."""

    @property
    def rate_hz(self) -> int: ...

    def set_rate(self, rate_hz: int) -> None: ...

    def take_interval(self) -> Interval: ...


class _Taken(NamedTuple):
    at_s: float  # Unix time
    step: Step


class Governing:
    """Keeps one run inside its budget. The short-lived children (rows, symbol extracts) are left
    out: they run once for each file, at the lowest priority, and a lower rate saves nothing of
    them. They stay in the overhead that is shown."""

    def __init__(self, config: AgentConfig, collector: Adjustable) -> None:
        budget = Budget(config.budget_percent, config.budget_user_percent)
        self._governor = Governor(config.rate_hz, budget)
        self._governor.go_on_at(collector.rate_hz, time.monotonic())
        self._asked_hz = config.rate_hz
        self._collector = collector
        self._children_ns = _children_cpu_ns()
        self._steps: deque[_Taken] = deque(maxlen=MAX_STEPS)
        self._dropped = 0  # samples between the end of an interval and a change of the rate

    @property
    def rate_hz(self) -> int:
        """At which the running interval is sampled; in a pause, the one that is left out."""
        return self._governor.level.rate_hz or self._governor.lowest_hz

    def booked(self, interval: Interval) -> Interval:
        """`interval`, with what a pause and a change of the rate left out counted as lost."""
        missed = {"rate_change": self._dropped} if self._dropped else {}
        self._dropped = 0
        if not self._governor.level.rate_hz:
            ticks = self.rate_hz * len(online_cpus()) * interval.duration_ns / 1e9
            missed["paused"] = round(ticks)
        return replace(interval, lost=interval.lost | missed) if missed else interval

    def end_interval(self, overhead: Overhead, duration_ns: int) -> None:
        """React to what the interval that just ended cost."""
        children_ns = _children_cpu_ns()
        spent_ns, self._children_ns = children_ns - self._children_ns, children_ns
        of_core = 100 * spent_ns / max(duration_ns, 1)
        cost = Cost(
            max(overhead.cpu_percent - of_core / len(online_cpus()), 0.0),
            max(overhead.user_percent_of_core - of_core, 0.0),
            overhead.memory_bytes,
            {},
        )
        step = self._governor.observe(cost, time.monotonic())
        if step is not None:
            self._take(step)

    def _take(self, step: Step) -> None:
        try:
            with using(*KERNEL_PROGRAMS):
                self._change_rate(step.before.rate_hz, step.after.rate_hz)
        except KernelError as error:
            self._governor.level = step.before
            _say(f"the governor cannot go to {step.after.words}: {error}")
            return
        self._steps.append(_Taken(time.time(), step))
        _say(f"governor: {step.words}")

    def _change_rate(self, before_hz: int, after_hz: int) -> None:
        """Every interval has one rate, by which its samples are weighed: those taken since the
        last one ended (some milliseconds) belong to neither and are dropped, counted."""
        self._collector.set_rate(0)
        self._dropped += self._collector.take_interval().samples
        try:
            self._collector.set_rate(after_hz)
        except KernelError:
            self._collector.set_rate(before_hz)
            raise

    @property
    def facts(self) -> dict[str, str]:
        """For the batches, while something is given up."""
        if self._governor.since_s is None:
            return {}
        words = f"{self._governor.level.words}, as the run before"
        if self._steps:
            taken = self._steps[-1]
            words = f"{taken.step.words} (at {_rfc3339(taken.at_s)})"
        return {
            "governor": clip(words),
            "shed": clip(", ".join(self._shed())),
            "shed_since": _rfc3339(self._shed_since() or time.time()),
        }

    def status(self) -> dict[str, Any]:
        """For the status file: times are Unix seconds; `shed` is what is given up at present."""
        return {
            "shed": self._shed(),
            "shed_since": self._shed_since(),
            "governor": [
                {
                    "at": taken.at_s,
                    "reason": taken.step.reason,
                    "value": taken.step.value,
                    "limit": taken.step.limit,
                    "words": taken.step.words,
                }
                for taken in self._steps
            ],
        }

    def _shed(self) -> list[str]:
        level = self._governor.level
        shed = []
        if level.rate_hz == 0:
            shed.append("sampling (paused)")
        elif level.rate_hz < self._asked_hz:
            shed.append(f"rate ({level.rate_hz} of {self._asked_hz} Hz)")
        return shed + list(level.shed)

    def _shed_since(self) -> float | None:
        since_s = self._governor.since_s
        return None if since_s is None else time.time() - (time.monotonic() - since_s)


def _children_cpu_ns() -> int:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round((children.ru_utime + children.ru_stime) * 1e9)


def _rfc3339(at_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))


def _say(words: str) -> None:
    print(f"flamefleet-agent run: {words}", file=sys.stderr, flush=True)
