"""What the governor decides about: budgets, costs, levels and the steps between them. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

MEMORY_BYTES = 50 << 20
USER_PERCENT = 2.0


class Budget(NamedTuple):
    """Limits of the overhead (definitions: docs/overhead.md)."""

    cpu_percent: float  # of the host
    user_percent_of_core: float = USER_PERCENT
    memory_bytes: int = MEMORY_BYTES


class Cost(NamedTuple):
    """What an interval cost. `features` are the shares of the host, in percent, that each feature
    took that is on; they are in `cpu_percent` too."""

    cpu_percent: float
    user_percent_of_core: float
    memory_bytes: int
    features: Mapping[str, float]


class Level(NamedTuple):
    """How much the agent does. At rate 0 it is paused."""

    rate_hz: int
    shed: tuple[str, ...] = ()  # features given up, in the order in which they were

    @property
    def words(self) -> str:
        rate = f"{self.rate_hz} Hz" if self.rate_hz else "paused"
        return f"{rate} without {', '.join(self.shed)}" if self.shed else rate


class Step(NamedTuple):
    """A change of level: `reason` is what was over its limit (cpu, user, memory), "room" for a
    step up, "pause over" for one out of a pause, "asked" and "asked over" where another rate was
    asked for; `value` and `limit` are in the unit of the reason, for "room" of the cost that had
    the least, for "asked" Hz."""

    reason: str
    value: float
    limit: float
    before: Level
    after: Level

    @property
    def words(self) -> str:
        return f"{self.before.words} -> {self.after.words}: {self.explanation}"

    @property
    def explanation(self) -> str:
        if self.reason == "pause over":
            return "the pause is over"
        if self.reason == "asked":
            return f"{self.value:g} Hz was asked for"
        if self.reason == "asked over":
            return "the time of the rate that was asked for is over"
        if self.reason == "room":
            return f"the cost leaves room ({self.value:.0%} of the limit)"
        if self.reason == "memory":
            grows = " and growing" if self.value <= self.limit else ""
            memory, limit = self.value / (1 << 20), self.limit / (1 << 20)
            return f"memory {memory:.1f} MiB{grows}, limit {limit:.0f}"
        whose = "of the host" if self.reason == "cpu" else "of one core in user space"
        return f"{self.value:.2f} % {whose}, limit {self.limit:g}"


class Pressure(NamedTuple):
    """The cost that is nearest to its limit, or furthest beyond it."""

    reason: str
    value: float
    limit: float

    @property
    def share(self) -> float:
        return self.value / self.limit
