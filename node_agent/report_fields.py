"""Fields of a process's report, of which nothing is taken for granted: it is another user's file.

What is missing, or of another kind than it should be, is like nothing.
"""

from collections.abc import Mapping
from typing import Any

ABSURD = 1 << 62  # beyond it is nothing that was measured, nor what every computation survives

Report = Mapping[str, Any]


def number(report: Report, name: str) -> float:
    """A number that can be computed with; 0 for what is none."""
    value = report.get(name)
    known = isinstance(value, int | float) and -ABSURD < value < ABSURD
    return float(value) if known else 0.0  # type: ignore[arg-type]  # `known` narrows it


def entries(report: Report, name: str) -> list[Any]:
    """A list, of whatever."""
    value = report.get(name)
    return value if isinstance(value, list) else []


def table(report: Report, name: str) -> Report | None:
    """A table; None for an empty one too."""
    value = report.get(name)
    return value if isinstance(value, Mapping) and value else None


def counts_of(report: Report, name: str) -> dict[str, int]:
    """Whole numbers by name, without zeros."""
    value = report.get(name)
    if not isinstance(value, Mapping):
        return {}
    return {str(key): count for key, count in value.items() if isinstance(count, int) and count}
