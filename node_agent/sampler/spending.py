"""What the governor judges: the cost of intervals, those that are too short put together."""

import resource
from collections.abc import Iterable, Mapping, Sequence

from node_agent.kernel.cpus import online_cpus
from node_agent.overhead.levels import Cost
from wire.schema import Overhead

MIN_JUDGED_S = 5.0  # less says little about the cost


class Spending:
    """The short-lived children (rows, symbol extracts) are left out: they run once for each file,
    within a ration of their own, and a lower rate saves nothing of them."""

    def __init__(self, interval_s: float) -> None:
        self._judged_s = min(MIN_JUDGED_S, interval_s / 2)
        self._children_ns = _children_cpu_ns()
        self._late_ns = 0
        self._waiting: list[tuple[Cost, int]] = []  # with the nanoseconds; not judged yet

    def add(
        self,
        overhead: Overhead,
        duration_ns: int,
        features: Mapping[str, float],
        late_ns: int = 0,
    ) -> Cost | None:
        """What the intervals since the last answer cost, this one of `duration_ns` the last of
        them; None when they were too short together. `features`: percent of the host. `late_ns` is
        the CPU time that this interval's batch took after `overhead` was measured: it belongs to
        this interval, and what the one before had so does not."""
        children_ns = _children_cpu_ns()
        others_ns = children_ns - self._children_ns + self._late_ns - late_ns
        self._children_ns, self._late_ns = children_ns, late_ns
        of_core = 100 * others_ns / max(duration_ns, 1)
        cost = Cost(
            max(overhead.cpu_percent - of_core / len(online_cpus()), 0.0),
            max(overhead.user_percent_of_core - of_core, 0.0),
            overhead.memory_bytes,
            features,
        )
        self._waiting.append((cost, duration_ns))
        if sum(lasted_ns for _, lasted_ns in self._waiting) < self._judged_s * 1e9:
            return None
        judged = mean(self._waiting)
        self._waiting.clear()
        return judged

    def forget(self) -> None:
        """Another rate is asked for: what was not judged yet says nothing about it."""
        self._waiting.clear()


def mean(spent: Sequence[tuple[Cost, int]]) -> Cost:
    """What several intervals cost together, by (cost, nanoseconds) of each; memory as it is now."""
    total_ns = max(sum(lasted_ns for _, lasted_ns in spent), 1)

    def weigh(percents: Iterable[float]) -> float:
        return sum(p * ns for p, (_, ns) in zip(percents, spent, strict=True)) / total_ns

    newest = spent[-1][0]
    return Cost(
        weigh(cost.cpu_percent for cost, _ in spent),
        weigh(cost.user_percent_of_core for cost, _ in spent),
        newest.memory_bytes,
        {
            name: weigh(cost.features.get(name, 0.0) for cost, _ in spent)
            for name in newest.features
        },
    )


def _children_cpu_ns() -> int:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round((children.ru_utime + children.ru_stime) * 1e9)
