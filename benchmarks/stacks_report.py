"""What `make bench-stacks` found: rows of the table, the goals, and all of it in words. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.shares import Difference

GOAL_COMPLETE_PERCENT = 99.0
GOAL_POINTS = 2.0
GOAL_NATIVE_US = 20.0
GOAL_PYTHON_US = 30.0
GOAL_ROWS_S = 5.0
GOAL_ROWS_MB = 150.0
SHOWN = 5  # differences of each comparison
_SHOWN_IN_WORDS = 2
_NORMAL_95 = 1.96


@dataclass
class Comparison:
    """Our shares of functions beside another sampler's of the same seconds, in points of percent.

    `chance_points` is the standard deviation of the largest one, were both to draw at random from
    one program. `has_goal` is False where the rival measures something else than we do.
    """

    rival: str
    samples: int
    rival_samples: int
    rival_complete_percent: float | None
    points: float
    chance_points: float
    differences: list[Difference]
    has_goal: bool = True

    @property
    def interval(self) -> tuple[float, float]:
        """The largest difference with 95 % of what chance does to it."""
        margin = _NORMAL_95 * self.chance_points
        return max(0.0, self.points - margin), self.points + margin


@dataclass
class Row:
    """One program. Shares in percent."""

    program: str
    words: str
    samples: int
    ready_s: float | None  # until its stacks were whole, from the first sample on
    complete_percent: float
    ends: dict[str, int]
    lost: dict[str, int]
    kernel_us_per_sample: float
    is_python: bool = False
    comparisons: list[Comparison] = field(default_factory=list)


def goals(rows: Sequence[Row], built: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Every goal with what was measured, and whether that reaches it."""
    found: list[tuple[str, float, str, float]] = []
    for row in rows:
        name = row.program
        found.append(
            (f"{name}: complete stacks, %", row.complete_percent, ">=", GOAL_COMPLETE_PERCENT)
        )
        for comparison in row.comparisons:
            if comparison.has_goal:
                words = f"{name}: largest difference to {comparison.rival}, points"
                found.append((words, comparison.points, "<=", GOAL_POINTS))
        limit = GOAL_PYTHON_US if row.is_python else GOAL_NATIVE_US
        found.append((f"{name}: BPF, µs a sample", row.kernel_us_per_sample, "<=", limit))
    if built is not None:
        words = f"rows of {built['file']} ({built['file_mb']:.0f} MB)"
        found.append((f"{words}: rows made", built["rows"], ">=", 1))
        found.append((f"{words}: CPU, s", built["cpu_s"], "<=", GOAL_ROWS_S))
        found.append((f"{words}: child's peak, MB", built["peak_rss_mb"], "<=", GOAL_ROWS_MB))
    return [
        {
            "goal": words,
            "measured": round(value, 2),
            "limit": f"{sign} {limit:g}",
            "reached": value >= limit if sign == ">=" else value <= limit,
        }
        for words, value, sign, limit in found
    ]


def report(rows: Sequence[Row], built: dict[str, Any] | None) -> str:
    """The table, the largest differences with their intervals, and each goal in words."""
    lines = ["{:<11}{:>9}{:>10}{:>11}".format("program", "samples", "complete", "µs/sample")]
    lines += [
        f"{row.program:<11}{row.samples:>9}{row.complete_percent:>9.2f}%"
        f"{row.kernel_us_per_sample:>11.1f}"
        for row in rows
    ]
    lines.append("(µs/sample: BPF alone)")
    for row in rows:
        for comparison in row.comparisons:
            lines += _compared(row.program, comparison)
    if built is not None:
        lines.append(
            f"rows of {built['file']}: {built['file_mb']:.0f} MB, {built['rows']} rows,"
            f" {built['cpu_s']:.1f} s of CPU, {built['wall_s']:.1f} s,"
            f" {built['peak_rss_mb']:.0f} MB in the child {built['refused']}"
        )
    for goal in goals(rows, built):
        word = "reached" if goal["reached"] else "MISSED"
        lines.append(f"{word:<8}{goal['goal']}: {goal['measured']} (goal {goal['limit']})")
    return "\n".join(lines)


def _compared(program: str, comparison: Comparison) -> list[str]:
    low, high = comparison.interval
    complete = comparison.rival_complete_percent
    whole = "" if complete is None else f", {complete:.2f} % complete"
    aside = "" if comparison.has_goal else "; it counts something else, no goal (docs/overhead.md)"
    return [
        f"{program}, {comparison.samples} samples beside {comparison.rival}'s"
        f" {comparison.rival_samples}{whole}: {comparison.points:.2f} points apart,"
        f" {low:.2f} to {high:.2f} with 95 % of chance{aside}",
        *(
            f"    {d.kind} of {d.function[:60]}: {d.ours:.2f} %, theirs {d.theirs:.2f} %"
            for d in comparison.differences[:_SHOWN_IN_WORDS]
        ),
    ]
