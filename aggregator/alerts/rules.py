"""When the agent's overhead, a limit that it met, a clone or a wrong clock is an alert: state
machines without clock or database."""

from dataclasses import dataclass, replace
from enum import Enum

OVERHEAD_RULE = "agent_overhead"
CLONE_RULE = "cloned_node"
CLOCK_RULE = "clock_offset"
PAUSED_RULE = "agent_paused"
LIMITED_RULE = "agent_limited"


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


@dataclass(frozen=True)
class CloneRule:
    """Fires while a batch was refused as a clone's within the last `window_s` seconds."""

    window_s: float = 600.0


@dataclass(frozen=True)
class EventRule:
    """Fires while what it is about (a pause of sampling, a limit of the agent's unit) happened
    within the last `window_s` seconds: a governor that pauses again and again is one alert."""

    window_s: float = 600.0


@dataclass(frozen=True)
class ClockRule:
    """Fires when a node's clock is off by more than `start_s`, and ends below `end_s`.

    A clock that was not read for `known_for_s` neither starts it nor keeps it firing: a host that
    was taken away must not fire for ever.
    """

    start_s: float = 10.0
    end_s: float = 5.0
    known_for_s: float = 3600.0


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


def over_whole_window(
    rule: OverheadRule, mean: OverheadMean, span_s: float, report_s: float
) -> OverheadMean:
    """`mean` with the CPU of reports that span `span_s` seconds held against the whole window.

    A node that has just started is not judged by the seconds of its start: what it took in its
    first minute counts as that minute's. The agent warns by the same rule
    (node_agent/sampler/warnings.py). Where only one report of `report_s` is wanting, it is on its
    way.
    """
    if span_s + report_s >= rule.window_s:
        return mean
    return replace(mean, cpu_percent=mean.cpu_percent * span_s / rule.window_s)


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


def judge_recent(rule: CloneRule | EventRule, ago_s: float | None, firing: bool) -> Change:
    """The change that something calls for which last happened `ago_s` seconds ago (None: never)."""
    is_recent = ago_s is not None and ago_s < rule.window_s
    if is_recent == firing:
        return Change.STAY
    return Change.START if is_recent else Change.END


def judge_clock(
    rule: ClockRule, offset_s: float | None, read_ago_s: float | None, firing: bool
) -> Change:
    """The change that a clock's offset calls for, in either direction, read so long ago.

    An unknown one (None) changes nothing.
    """
    if offset_s is None or read_ago_s is None:
        return Change.STAY
    if read_ago_s > rule.known_for_s:
        return Change.END if firing else Change.STAY
    if not firing and abs(offset_s) > rule.start_s:
        return Change.START
    if firing and abs(offset_s) < rule.end_s:
        return Change.END
    return Change.STAY
