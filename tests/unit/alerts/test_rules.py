"""The overhead rule as a table: means in, change out."""

import pytest

from aggregator.alerts.rules import (
    Change,
    Excess,
    OverheadMean,
    OverheadRule,
    judge,
    worst_excess,
)

MIB = 1 << 20
RULE = OverheadRule()


@pytest.mark.parametrize(
    ("reports", "cpu_percent", "memory_mib", "firing", "change"),
    [
        # Quiet, and stays quiet up to the limit itself.
        (6, 0.1, 30, False, Change.STAY),
        (6, 1.0, 50, False, Change.STAY),
        # Either quantity is enough.
        (6, 1.01, 30, False, Change.START),
        (6, 0.1, 50.1, False, Change.START),
        (6, 9.0, 500, False, Change.START),
        # One report is not enough to start, nor to end.
        (1, 9.0, 500, False, Change.STAY),
        (1, 0.0, 0, True, Change.STAY),
        (0, 0.0, 0, False, Change.STAY),
        # A firing alert ends when both are clearly below.
        (2, 0.9, 45, True, Change.END),
        (6, 0.1, 30, True, Change.END),
        (6, 0.95, 30, True, Change.STAY),
        (6, 0.1, 49, True, Change.STAY),
        (6, 0.1, 51, True, Change.STAY),
        (6, 2.0, 30, True, Change.STAY),
        # A node that fell silent keeps its alert.
        (0, 0.0, 0, True, Change.STAY),
    ],
)
def test_the_rule(
    reports: int, cpu_percent: float, memory_mib: float, firing: bool, change: Change
) -> None:
    mean = OverheadMean(reports, cpu_percent, memory_mib * MIB)
    assert judge(RULE, mean, firing) is change


@pytest.mark.parametrize(
    ("cpu_percent", "memory_mib", "quantity"),
    [(1.5, 60, "cpu_percent"), (1.1, 100, "memory_bytes"), (0.5, 10, "cpu_percent")],
)
def test_the_alert_names_what_is_furthest_over(
    cpu_percent: float, memory_mib: float, quantity: str
) -> None:
    assert worst_excess(RULE, OverheadMean(3, cpu_percent, memory_mib * MIB)).quantity == quantity


def test_a_limit_of_nothing_is_always_exceeded() -> None:
    assert Excess("cpu_percent", 0.0, 0.0).ratio > 1
