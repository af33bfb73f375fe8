"""What to give up when the agent costs more than its budget, and when to take it back. Pure.

Down: the highest rate of the ladder that is expected to fit, at the lowest rate the dearest
features, as many as it takes, and when nothing is left to give up a pause. Up: one step at a time,
and only after the cost has left room for it for some time, which doubles whenever a step up turns
out too dear. So a load that swings does not make the rate swing with it. One interval a little over
its limit calls for nothing yet, two in a row do.

Costs are taken to grow with the rate. They have a fixed part too, so a step down may save less
than expected: then the next interval takes the next step. Memory lowers the rate before its limit
is met (memory_pressure.py) and never pauses: that would give nothing back.
"""

from collections.abc import Sequence

from node_agent.overhead.levels import Budget, Cost, Level, Pressure, Step
from node_agent.overhead.memory_pressure import MemoryPressure

RATES_HZ = (199, 99, 49, 19, 11)
SPARSE_HZ = (5, 2, 1)  # where all CPUs together still give that many samples a second:
SPARSE_SAMPLES = 38  # as production takes on two CPUs
AIM = 0.9  # of the limit: what a step down has to fit into
ROOM = 0.7  # of the limit: what a step up has to fit into
WORTH = 0.02  # of the cost of everything else: what a feature has to save to be given up
AT_ONCE = 1.5  # of the limit: where one interval is enough for a step down
CALM_S = 60.0
MAX_CALM_S = 3600.0
PAUSE_S = 60.0
MEMORY_ROOM = 0.8  # memory hardly grows with a step up: its room may be smaller
SETTLE_S = 60.0  # at first every process and every stack is new: that passes by itself
_MIN_REST = 0.05  # of the cost: so much has a sample without any feature
SETTLING = 3.0  # of the limit: what is too much even then


class Governor:
    """Decides after every interval. `features` are those that may be given up."""

    def __init__(
        self,
        rate_hz: int,
        budget: Budget,
        features: Sequence[str] = (),
        settle_s: float | None = None,
        cpus: int = 1,
    ) -> None:
        self._cpus = cpus
        self.level = Level(rate_hz)
        self.since_s: float | None = None  # when something was first given up; None: nothing is
        self._budget = budget
        self._memory = MemoryPressure(budget.memory_bytes)
        self._features = tuple(features)
        self._configured_hz = rate_hz
        self._ladder = _ladder(cpus, rate_hz)
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
        self._ladder = _ladder(self._cpus, rate_hz, *rates)
        after = Level(rate_hz if is_whole else min(self.level.rate_hz, rate_hz), self.level.shed)
        if after == self.level:
            return None
        reason = "asked over" if rate_hz == self._configured_hz else "asked"
        return self._change(Pressure(reason, rate_hz, rate_hz), after, now_s)

    @property
    def lowest_hz(self) -> int:
        """The lowest rate that is sampled at before a pause."""
        return self._ladder[-1]

    def observe(self, cost: Cost, now_s: float) -> Step | None:
        """The change of level that the interval which ended at `now_s` (monotonic) calls for."""
        if self.level.rate_hz == 0:
            if now_s - self._changed_s < PAUSE_S:
                return None
            return self._change(Pressure("pause over", 0, 0), self._resumed(), now_s)
        rest = max(cost.cpu_percent - sum(cost.features.values()), cost.cpu_percent * _MIN_REST)
        for feature, percent in cost.features.items():
            self._feature_costs[feature] = percent / rest if rest > 0 else 0.0
        cpu = self._nearest(cost)
        if self._first_s is None:
            self._first_s = now_s
        if now_s - self._first_s < self._settle_s and cpu.share < SETTLING:
            return self.watch_memory(cost.memory_bytes, now_s)
        was_over, self._was_over = self._was_over, cpu.share > 1
        if cpu.share > 1:
            self._calm_since_s = None
            if cpu.share < AT_ONCE and not was_over:
                return self.watch_memory(cost.memory_bytes, now_s)
            return self._change(cpu, self._lower(cpu.share), now_s)
        step = self.watch_memory(cost.memory_bytes, now_s)
        return step or self._consider_more(cpu, cost.memory_bytes, now_s)

    def watch_memory(self, memory_bytes: int, now_s: float) -> Step | None:
        """The step down that `memory_bytes` call for. For intervals that are too short for
        `observe`, which does it too."""
        limit_bytes = self._budget.memory_bytes
        expected_bytes = self._memory.expect(memory_bytes, now_s)
        lower = self._lower_rate(1.0) if self.level.rate_hz else None
        if expected_bytes <= limit_bytes or lower is None:
            return None  # what else there is would give back nothing
        if not self._memory.may_step(memory_bytes, now_s):
            return None
        self._memory.note_step(memory_bytes, now_s)
        return self._change(Pressure("memory", memory_bytes, limit_bytes), lower, now_s)

    def _nearest(self, cost: Cost) -> Pressure:
        """Of the two limits of CPU time the nearer one."""
        cpu = Pressure("cpu", cost.cpu_percent, self._budget.cpu_percent)
        user = Pressure("user", cost.user_percent_of_core, self._budget.user_percent_of_core)
        return max(cpu, user, key=lambda pressure: pressure.share)

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

    def _consider_more(self, cpu: Pressure, memory_bytes: int, now_s: float) -> Step | None:
        after = self._higher()
        if after is None:
            return None
        memory = memory_bytes / self._budget.memory_bytes
        if self._expected(cpu, after) > ROOM or memory > MEMORY_ROOM:
            self._calm_since_s = None
            return None
        if self._calm_since_s is None:
            self._calm_since_s = now_s
        if now_s - self._calm_since_s < self._calm_s:
            return None
        return self._change(Pressure("room", max(cpu.share, memory), 1.0), after, now_s)

    def _higher(self) -> Level | None:
        rate, shed = self.level
        if shed:
            return Level(rate, shed[:-1])
        higher = [step for step in self._ladder if step > rate]
        return Level(higher[-1]) if higher else None

    def _expected(self, cpu: Pressure, after: Level) -> float:
        """The share of the limit that `after` would take."""
        if after.rate_hz != self.level.rate_hz:
            return cpu.share * after.rate_hz / self.level.rate_hz
        # The load may be another one since the feature was given up, so its cost is scaled by what
        # everything else takes now.
        return cpu.share * (1 + self._feature_costs.get(self.level.shed[-1], 0.0))

    def _change(self, why: Pressure, after: Level, now_s: float) -> Step:
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


def _ladder(cpus: int, highest_hz: int, *between_hz: int) -> tuple[int, ...]:
    """The rates from `highest_hz` down, those of `between_hz` among them."""
    sparse = [rate for rate in SPARSE_HZ if rate * cpus >= SPARSE_SAMPLES]
    lower = {rate for rate in (*RATES_HZ, *sparse, *between_hz) if rate < highest_hz}
    return (highest_hz, *sorted(lower, reverse=True))
