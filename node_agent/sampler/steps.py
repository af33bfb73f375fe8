"""The governor's steps as they are told: a line of the log, an event, facts and the status."""

import time
from collections import deque
from typing import Any, NamedTuple

from node_agent.log import Log
from node_agent.overhead.levels import Step
from node_agent.sampler.events import Events
from node_agent.sampler.facts import clip

MAX_STEPS = 20  # remembered for the status
_DOWN = ("cpu", "user", "memory")


class _Taken(NamedTuple):
    at_s: float  # Unix time
    step: Step


class Steps:
    """Those of this run, the newest MAX_STEPS of them."""

    def __init__(self, events: Events, log: Log) -> None:
        self._events = events
        self._log = log
        self._taken: deque[_Taken] = deque(maxlen=MAX_STEPS)

    def tell(self, step: Step) -> None:
        """`step` was taken now."""
        self._taken.append(_Taken(time.time(), step))
        before, after = step.before.words, step.after.words
        numbers = (step.value, step.limit)
        self._events.add("governor", step.reason, step.words, *numbers, before, after)
        (self._log.warning if step.reason in _DOWN else self._log.info)(
            "governor",
            step.words,
            reason=step.reason,
            value=step.value,
            limit=step.limit,
            rate_hz=step.after.rate_hz,
            shed=", ".join(step.after.shed),
        )

    def facts(self, level: str, shed: list[str], since_s: float) -> dict[str, str]:
        """For the batches: what is given up, since when (Unix time), and the newest step; `level`
        is where a run began that has taken none."""
        words = f"{level}, as the run before"
        if self._taken:
            taken = self._taken[-1]
            words = f"{taken.step.words} (at {_rfc3339(taken.at_s)})"
        return {
            "governor": clip(words),
            "shed": clip(", ".join(shed)),
            "shed_since": _rfc3339(since_s),
        }

    def status(self) -> list[dict[str, Any]]:
        """For the status file, the oldest first; times are Unix seconds."""
        return [
            {
                "at": taken.at_s,
                "reason": taken.step.reason,
                "value": taken.step.value,
                "limit": taken.step.limit,
                "words": taken.step.words,
            }
            for taken in self._taken
        ]


def _rfc3339(at_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))
