"""The rules as tables: what was seen in, change out."""

import pytest

from aggregator.alerts.rules import (
    Change,
    ClockRule,
    CloneRule,
    EventRule,
    Excess,
    OverheadMean,
    OverheadRule,
    judge,
    judge_clock,
    judge_recent,
    over_whole_window,
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


@pytest.mark.parametrize(
    ("ago_s", "firing", "change"),
    [
        (None, False, Change.STAY),
        (0, False, Change.START),
        (599.9, False, Change.START),
        (600, False, Change.STAY),
        (86_400, False, Change.STAY),
        # Every further one makes it last ten minutes more.
        (0, True, Change.STAY),
        (599.9, True, Change.STAY),
        (600, True, Change.END),
        (None, True, Change.END),
    ],
)
def test_the_rules_of_what_happened_lately(
    ago_s: float | None, firing: bool, change: Change
) -> None:
    assert judge_recent(CloneRule(), ago_s, firing) is change
    assert judge_recent(EventRule(), ago_s, firing) is change


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize(
    ("offset_s", "firing", "change"),
    [
        (0, False, Change.STAY),
        (10, False, Change.STAY),
        (10.001, False, Change.START),
        (86_400, False, Change.START),
        # Between the two limits it stays what it is.
        (7, False, Change.STAY),
        (7, True, Change.STAY),
        (5, True, Change.STAY),
        (4.999, True, Change.END),
        (86_400, True, Change.STAY),
    ],
)
def test_the_clock_rule(offset_s: float, side: int, firing: bool, change: Change) -> None:
    for read_ago_s in (0.0, 3600.0):
        assert judge_clock(ClockRule(), side * offset_s, read_ago_s, firing) is change


@pytest.mark.parametrize("firing", [False, True])
def test_an_unknown_clock_changes_nothing(firing: bool) -> None:
    assert judge_clock(ClockRule(), None, 1.0, firing) is Change.STAY
    assert judge_clock(ClockRule(), 90.0, None, firing) is Change.STAY


@pytest.mark.parametrize("offset_s", [0.0, 7.0, 86_400.0])
def test_a_clock_that_was_read_long_ago_fires_no_more(offset_s: float) -> None:
    assert judge_clock(ClockRule(), offset_s, 3601.0, firing=False) is Change.STAY
    assert judge_clock(ClockRule(), offset_s, 3601.0, firing=True) is Change.END


@pytest.mark.parametrize(
    ("span_s", "cpu_percent"), [(0, 0.0), (20, 1.0), (50, 3.0), (60, 3.0), (300, 3.0)]
)
def test_a_short_life_is_held_against_the_whole_window(span_s: float, cpu_percent: float) -> None:
    mean = over_whole_window(RULE, OverheadMean(2, 3.0, 40 * MIB), span_s, 10)
    assert mean == OverheadMean(2, pytest.approx(cpu_percent), 40 * MIB)
