"""The hostile bench's figures as a table, and beside the goals."""

from collections.abc import Sequence
from typing import Any

GOAL_MEDIAN_MS = 100.0  # of an honest node's batch
GOAL_MOST_MS = 1_000.0
GOAL_MEMORY_MIB = 400.0
_HEADS = ("attack", "batches", "median", "most", "refused", "healthz", "loop", "MiB", "log KB")
_WIDTHS = (34, 8, 8, 8, 8, 9, 8, 6, 7)
_EXPLAINED = (
    "median, most: ms that an honest node's batch takes",
    "healthz, loop: ms, the longest answer of /healthz and the largest delay of the event loop",
    "MiB: the peak of the aggregator's resident memory",
)


def report(minutes: Sequence[dict[str, Any]]) -> str:
    """The table, the counts of each attack, and the goals with ratios."""
    lines = [_line(_HEADS), *(_line(_cells(minute)) for minute in minutes), *_EXPLAINED, ""]
    for minute in minutes:
        if minute["is_attacked"]:
            told = dict(minute["counts"])
            if minute["batches_refused"]:
                told["honest batches refused"] = minute["batches_refused"]
            if minute["delivery_median_s"] is not None:
                told["the other receiver's alert, median s"] = round(minute["delivery_median_s"], 1)
            words = ", ".join(f"{name} {count}" for name, count in told.items())
            lines.append(f"{minute['attack']}: {words}")
    lines.append("")
    for minute in minutes:
        if minute["is_attacked"]:
            lines += _goals(minute)
    return "\n".join(lines)


def _cells(minute: dict[str, Any]) -> tuple[str, ...]:
    return (
        minute["attack"] if minute["is_attacked"] else f"without {minute['attack']}",
        str(minute["batches"]),
        f"{minute['batch_median_ms']:.1f}",
        f"{minute['batch_most_ms']:.0f}",
        str(sum(minute["batches_refused"].values())),
        f"{minute['health_most_ms']:.0f}",
        f"{minute['loop_delay_most_ms']:.0f}",
        f"{minute['memory_peak_mib']:.0f}",
        f"{minute['log_bytes'] / 1000:.1f}",
    )


def _line(cells: Sequence[str]) -> str:
    return "".join(
        cell.ljust(width) if place == 0 else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=True))
    )


def _goals(minute: dict[str, Any]) -> list[str]:
    goals = (
        ("batch, median ms", minute["batch_median_ms"], GOAL_MEDIAN_MS),
        ("batch, most ms", minute["batch_most_ms"], GOAL_MOST_MS),
        ("memory, MiB", minute["memory_peak_mib"], GOAL_MEMORY_MIB),
    )
    lines = [
        f"{'reached' if value <= goal else 'MISSED':<8}{minute['attack']}: {words}: {value:.0f}, "
        f"goal {goal:.0f}: {value / goal:.2f} of it"
        for words, value, goal in goals
    ]
    failed = minute["health_failed"]
    said = "MISSED" if failed else "reached"
    lines.append(
        f"{said:<8}{minute['attack']}: /healthz failed {failed} of {minute['health_answers']} times"
    )
    return lines
