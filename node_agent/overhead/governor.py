"""What to give up when the agent costs more than its budget, and when to take it back. Pure.

Down: the highest rate of the ladder that is expected to fit, at the lowest rate the dearest
features, as many as it takes, and when nothing is left to give up a pause. Up: one step at a time,
and only after the cost has left room for it for some time, which doubles whenever a step up turns
out too dear. So a load that swings does not make the rate swing with it. One interval a little over
its limit calls for nothing yet, two in a row do.

Costs are taken to grow with the rate. They have a fixed part too, so a step down may save less
than expected: then the next interval takes the next step.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

RATES_HZ = (199, 99, 49, 19, 11)
MEMORY_BYTES = 50 << 20
AIM = 0.9  # of the limit: what a step down has to fit into
ROOM = 0.7  # of the limit: what a step up has to fit into
WORTH = 0.02  # of the cost of everything else: what a feature has to save to be given up
AT_ONCE = 1.5  # of the limit: where one interval is enough for a step down
CALM_S = 60.0
MAX_CALM_S = 3600.0
PAUSE_S = 60.0
MEMORY_WAIT_S = 30.0  # memory is given back slowly
SETTLE_S = 60.0  # at first every process and every stack is new: that passes by itself
_MIN_REST = 0.05  # of the cost: so much has a sample without any feature
SETTLING = 3.0  # of the limit: what is too much even then


class Budget(NamedTuple):
    """Limits of the overhead (definitions: docs/overhead.md)."""

    cpu_percent: float  # of the host
    user_percent_of_core: float = 2.0
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
            return f"memory {self.value / (1 << 20):.1f} MiB, limit {self.limit / (1 << 20):.0f}"
        whose = "of the host" if self.reason == "cpu" else "of one core in user space"
        return f"{self.value:.2f} % {whose}, limit {self.limit:g}"


class _Pressure(NamedTuple):
    """The cost that is nearest to its limit, or furthest beyond it."""

    reason: str
    value: float
    limit: float

    @property
    def share(self) -> float:
        return self.value / self.limit


class Governor:
    """Decides after every interval. `features` are those that may be given up."""

    def __init__(
        self,
        rate_hz: int,
        budget: Budget,
        features: Sequence[str] = (),
        settle_s: float | None = None,
    ) -> None:
        self.level = Level(rate_hz)
        self.since_s: float | None = None  # when something was first given up; None: nothing is
        self._budget = budget
        self._features = tuple(features)
        self._configured_hz = rate_hz
        self._ladder = _ladder(rate_hz)
        self._feature_costs: dict[str, float] = {}  # as shares of the cost of everything else
        self._calm_s = CALM_S
        self._calm_since_s: float | None = None
        self._changed_s = float("-inf")
        self._last_reason = ""
        self._was_over = False
        self._settle_s = SETTLE_S if settle_s is None else settle_s
        self._first_s: float | None = None  # when the first interval ended

    def go_on_at(self, rate_hz: int, shed: Sequence[str], now_s: float) -> None:
        """Begin with what the process before this one had given up when it ended."""
        lower_hz = min(rate_hz or self.lowest_hz, self.level.rate_hz)
        before, self.level = self.level, Level(lower_hz, tuple(shed))
        if self.level != before:
            self.since_s = now_s

    def ask(self, rate_hz: int, now_s: float) -> Step | None:
        """From now on aim at `rate_hz`, which takes the place of the configured rate. The step to
        it, unless something is given up: then it is what steps up may lead to."""
        is_whole = self.level == Level(self._ladder[0])
        rates = (self._configured_hz,) if self._configured_hz < rate_hz else ()
        self._ladder = _ladder(rate_hz, *rates)
        after = Level(rate_hz if is_whole else min(self.level.rate_hz, rate_hz), self.level.shed)
        if after == self.level:
            return None
        reason = "asked over" if rate_hz == self._configured_hz else "asked"
        return self._change(_Pressure(reason, rate_hz, rate_hz), after, now_s)

    @property
    def lowest_hz(self) -> int:
        """The lowest rate that is sampled at before a pause."""
        return self._ladder[-1]

    def observe(self, cost: Cost, now_s: float) -> Step | None:
        """The change of level that the interval which ended at `now_s` (monotonic) calls for."""
        if self.level.rate_hz == 0:
            if now_s - self._changed_s < PAUSE_S:
                return None
            return self._change(_Pressure("pause over", 0, 0), self._resumed(), now_s)
        rest = max(cost.cpu_percent - sum(cost.features.values()), cost.cpu_percent * _MIN_REST)
        for feature, percent in cost.features.items():
            self._feature_costs[feature] = percent / rest if rest > 0 else 0.0
        cpu, memory = self._pressures(cost)
        if self._first_s is None:
            self._first_s = now_s
        if now_s - self._first_s < self._settle_s and cpu.share < SETTLING:
            return None
        was_over, self._was_over = self._was_over, cpu.share > 1
        if cpu.share > 1:
            self._calm_since_s = None
            if cpu.share < AT_ONCE and not was_over:
                return None
            return self._change(cpu, self._lower(cpu.share), now_s)
        if memory.share > 1:
            lower = self._lower_rate(1.0)
            if now_s - self._changed_s < MEMORY_WAIT_S or lower is None:
                return None  # what else there is would give back nothing
            return self._change(memory, lower, now_s)
        return self._consider_more(cpu, memory, now_s)

    def _pressures(self, cost: Cost) -> tuple[_Pressure, _Pressure]:
        cpu = _Pressure("cpu", cost.cpu_percent, self._budget.cpu_percent)
        user = _Pressure("user", cost.user_percent_of_core, self._budget.user_percent_of_core)
        memory = _Pressure("memory", cost.memory_bytes, self._budget.memory_bytes)
        return max(cpu, user, key=lambda pressure: pressure.share), memory

    def _lower(self, share: float) -> Level:
        """The level below that should bring `share` of the limit under AIM."""
        return self._lower_rate(share) or self._without_features(share) or Level(0, self.level.shed)

    def _lower_rate(self, share: float) -> Level | None:
        rate, shed = self.level
        lower = [step for step in self._ladder if step < rate]
        fitting = [step for step in lower if share * step / rate <= AIM] or lower[-1:]
        return Level(fitting[0], shed) if fitting else None

    def _without_features(self, share: float) -> Level | None:
        """Without the dearest features, as many as it takes; those that cost next to nothing stay,
        as nothing would be saved."""
        rate, shed = self.level
        costs = {name: self._feature_costs.get(name, 0.0) for name in self._features}
        left = [name for name in costs if name not in shed and costs[name] >= WORTH]
        rest = share / (1 + sum(costs[name] for name in left))
        given_up: list[str] = []
        for name in sorted(left, key=lambda name: -costs[name]):
            given_up.append(name)
            share -= rest * costs[name]
            if share <= AIM:
                break
        return Level(rate, (*shed, *given_up)) if given_up else None

    def _resumed(self) -> Level:
        return Level(self.lowest_hz, self.level.shed)

    def _consider_more(self, cpu: _Pressure, memory: _Pressure, now_s: float) -> Step | None:
        after = self._higher()
        if after is None:
            return None
        expected = max(self._expected(cpu, after), memory.share)
        if expected > ROOM:
            self._calm_since_s = None
            return None
        if self._calm_since_s is None:
            self._calm_since_s = now_s
        if now_s - self._calm_since_s < self._calm_s:
            return None
        return self._change(_Pressure("room", max(cpu.share, memory.share), 1.0), after, now_s)

    def _higher(self) -> Level | None:
        rate, shed = self.level
        if shed:
            return Level(rate, shed[:-1])
        higher = [step for step in self._ladder if step > rate]
        return Level(higher[-1]) if higher else None

    def _expected(self, cpu: _Pressure, after: Level) -> float:
        """The share of the limit that `after` would take."""
        if after.rate_hz != self.level.rate_hz:
            return cpu.share * after.rate_hz / self.level.rate_hz
        # The load may be another one since the feature was given up, so its cost is scaled by what
        # everything else takes now.
        return cpu.share * (1 + self._feature_costs.get(self.level.shed[-1], 0.0))

    def _change(self, why: _Pressure, after: Level, now_s: float) -> Step:
        is_down = why.reason in ("cpu", "user", "memory")
        if is_down and self._last_reason in ("room", "pause over"):
            if now_s - self._changed_s <= self._calm_s:
                self._calm_s = min(2 * self._calm_s, MAX_CALM_S)  # that step up was too dear
            else:
                self._calm_s = CALM_S
        step = Step(why.reason, why.value, why.limit, self.level, after)
        self.level = after
        self._changed_s, self._calm_since_s, self._last_reason = now_s, None, why.reason
        self._was_over = False
        is_whole = after == Level(self._ladder[0])
        self.since_s = None if is_whole else now_s if self.since_s is None else self.since_s
        return step


def _ladder(highest_hz: int, *between_hz: int) -> tuple[int, ...]:
    """The rates from `highest_hz` down, those of `between_hz` among them."""
    lower = {rate for rate in (*RATES_HZ, *between_hz) if rate < highest_hz}
    return (highest_hz, *sorted(lower, reverse=True))
