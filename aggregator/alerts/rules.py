"""When the agent's own overhead is an alert: a state machine without clock or database."""

from dataclasses import dataclass
from enum import Enum

OVERHEAD_RULE = "agent_overhead"


@dataclass(frozen=True)
class OverheadRule:
    """Fires above either limit, and ends when both quantities are clearly below again.

    "Clearly" is `end_share` of the limit: a node that hovers at it must not send a message a
    minute.
    """

    cpu_percent: float = 1.0  # of the host, as everywhere (docs/overhead.md)
    memory_bytes: int = 50 << 20
    window_s: float = 60.0
    min_reports: int = 2  # one batch may hold a single burst, such as reading a large binary
    end_share: float = 0.9


@dataclass(frozen=True)
class OverheadMean:
    """Mean of a node's overhead reports over the rule's window."""

    reports: int
    cpu_percent: float
    memory_bytes: float


@dataclass(frozen=True)
class Excess:
    """The quantity that is furthest over (or nearest to) its limit."""

    quantity: str  # "cpu_percent" or "memory_bytes"
    value: float
    threshold: float

    @property
    def ratio(self) -> float:
        return self.value / self.threshold if self.threshold > 0 else float("inf")


class Change(Enum):
    """What happens to a node's alert."""

    START = "start"
    END = "end"
    STAY = "stay"


def worst_excess(rule: OverheadRule, mean: OverheadMean) -> Excess:
    """CPU or memory, whichever is larger in shares of its limit."""
    cpu = Excess("cpu_percent", mean.cpu_percent, rule.cpu_percent)
    memory = Excess("memory_bytes", mean.memory_bytes, rule.memory_bytes)
    return max(cpu, memory, key=lambda excess: excess.ratio)


def judge(rule: OverheadRule, mean: OverheadMean, firing: bool) -> Change:
    """The change that `mean` calls for. Too few reports change nothing, in either direction."""
    if mean.reports < rule.min_reports:
        return Change.STAY
    ratio = worst_excess(rule, mean).ratio
    if not firing and ratio > 1:
        return Change.START
    if firing and ratio <= rule.end_share:
        return Change.END
    return Change.STAY
