"""Shares of functions in two samplings of the same run, and where they differ: pure."""

from collections import Counter
from dataclasses import dataclass

# Root first, each by its function; the last one is where the sample was taken.
Stack = tuple[str, ...]
MIN_PERCENT = 1.0  # a function that has less in both is not compared


@dataclass(frozen=True)
class Difference:
    """One function's share in percent; `kind` is `total` (anywhere in the stack) or `self`."""

    function: str
    kind: str
    ours: float
    theirs: float

    @property
    def points(self) -> float:
        """How far apart, in points of percent."""
        return abs(self.ours - self.theirs)


def compare(ours: Counter[Stack], theirs: Counter[Stack]) -> list[Difference]:
    """Every function with at least MIN_PERCENT in one of them, the largest difference first.

    Frames without a function ("") count for no function, but do for the whole.
    """
    found = []
    for kind, shares in (("total", _total), ("self", _self)):
        left, right = shares(ours), shares(theirs)
        found += [
            Difference(function, kind, left.get(function, 0.0), right.get(function, 0.0))
            for function in left.keys() | right.keys()
            if max(left.get(function, 0.0), right.get(function, 0.0)) >= MIN_PERCENT
        ]
    return sorted(found, key=lambda difference: -difference.points)


def expected_points(percent: float, ours: int, theirs: int) -> float:
    """Standard deviation of the difference of two independent samplings, in points."""
    part = percent / 100
    return float(100 * (part * (1 - part) * (1 / max(1, ours) + 1 / max(1, theirs))) ** 0.5)


def _total(stacks: Counter[Stack]) -> dict[str, float]:
    counts: Counter[str] = Counter()
    for stack, count in stacks.items():
        for function in set(stack):
            counts[function] += count
    return _percent(counts, stacks.total())


def _self(stacks: Counter[Stack]) -> dict[str, float]:
    counts: Counter[str] = Counter()
    for stack, count in stacks.items():
        counts[stack[-1]] += count
    return _percent(counts, stacks.total())


def _percent(counts: Counter[str], whole: int) -> dict[str, float]:
    return {name: 100 * count / whole for name, count in counts.items() if name}
