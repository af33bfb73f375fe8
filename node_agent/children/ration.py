"""How much CPU time the sampler's children may use: what the agent leaves of its budget. Pure.

A bucket of CPU seconds. It fills at the rate that the budget leaves beside what the agent itself
costs, and what a child has used is taken out. So in any window of T seconds the children use at
most depth + rate x T; the depths are such that on a host of the production preset this and the
agent itself stay below the alert of 1 % of the host (aggregator/alerts/rules.py: the mean of the
last minute, or of two reports after a start).
"""

import math

ALERT_PERCENT = 1.0  # of the host
SAFE_PERCENT = 0.8  # what the agent may cost on average with a full bucket still to be emptied
FRESH_S = 300.0  # after a start, when everything is new
FRESH_FACTOR = 1.6  # by which the budget may then be exceeded, below SAFE_PERCENT
FLOOR_PERCENT = 0.2  # of the host: an agent that uses up its budget gets whole stacks too
USUAL_OWN_PERCENT = 0.25  # taken for what the agent costs until an interval has ended
# What the bucket holds at the start and at most, in seconds of the limit.
FIRST_DEPTH_S = 4.0
FRESH_DEPTH_S = 12.0
DEPTH_S = 30.0
HEAD_START_OVER_S = 60.0
AT_ONCE = 0.25  # of the head start


class Ration:
    """CPU seconds for children on a host of `cpus` CPUs. `budget_percent` is of the host; None: no
    ration at all. `head_start_s` are CPU seconds on top that can be used once, a quarter of them at
    once and the rest as a minute passes, for names are asked for later than rows: the alert is then
    no promise any more. Times are of one clock that never goes back."""

    def __init__(
        self, budget_percent: float | None, cpus: int, now_s: float, head_start_s: float = 0.0
    ) -> None:
        self._budget_percent = budget_percent
        self._head_start_s = head_start_s
        self._ahead_s = 0.0  # of the head start, to be used now
        self._ahead_used_s = 0.0
        self._cpus = cpus
        self._own_percent = USUAL_OWN_PERCENT
        self._begun_s = self._earned_s = now_s
        self._left_s = self._seconds(FIRST_DEPTH_S, now_s)

    def left_s(self, now_s: float) -> float:
        """What may be used now; negative when a child has used more than there was."""
        if self._budget_percent is None:
            return math.inf
        passed_s, self._earned_s = max(now_s - self._earned_s, 0.0), now_s
        earned_s = passed_s * self.share_percent(now_s) / 100 * self._cpus
        self._left_s = min(self._left_s + earned_s, self.depth_s(now_s))
        passed = min((now_s - self._begun_s) / HEAD_START_OVER_S, 1.0)
        released_s = self._head_start_s * (AT_ONCE + (1 - AT_ONCE) * passed)
        self._ahead_s = released_s - self._ahead_used_s
        return self._left_s + self._ahead_s

    def wait_s(self, wanted_s: float, now_s: float) -> float:
        """How long until `wanted_s` may be used, if nothing changes; 0 where they may be now."""
        missing_s = wanted_s - self.left_s(now_s)
        if missing_s <= 0:
            return 0.0
        a_second = self.share_percent(now_s) / 100 * self._cpus
        if now_s - self._begun_s < HEAD_START_OVER_S:
            a_second += self._head_start_s * (1 - AT_ONCE) / HEAD_START_OVER_S
        return missing_s / a_second

    def depth_s(self, now_s: float) -> float:
        """What can be saved up."""
        is_fresh = now_s - self._begun_s < FRESH_S
        return self._seconds(FRESH_DEPTH_S if is_fresh else DEPTH_S, now_s)

    def share_percent(self, now_s: float) -> float:
        """Of the host, what the children may use in the long run."""
        return max(self._limit_percent(now_s) - self._own_percent, FLOOR_PERCENT)

    def pay(self, cpu_s: float) -> None:
        """A child has used so much."""
        ahead_s = min(cpu_s, self._ahead_s)
        self._ahead_s -= ahead_s
        self._ahead_used_s += ahead_s
        self._left_s -= cpu_s - ahead_s

    def note_own(self, percent: float, cpus: int) -> None:
        """What the agent without its children cost in an interval, percent of a host that has
        `cpus` now. One interval counts half: a single one may be unusual."""
        self._own_percent = (self._own_percent + percent) / 2
        self._cpus = cpus

    def _limit_percent(self, now_s: float) -> float:
        budget = self._budget_percent
        if budget is None:
            return math.inf
        if budget > ALERT_PERCENT:
            return budget
        is_fresh = now_s - self._begun_s < FRESH_S
        return min(budget * FRESH_FACTOR if is_fresh else budget, SAFE_PERCENT)

    def _seconds(self, limit_s: float, now_s: float) -> float:
        return limit_s * self._limit_percent(now_s) / 100 * self._cpus
