"""What the children may use stays below the alert, whatever the host's size and time."""

import pytest

from node_agent.children.ration import (
    ALERT_PERCENT,
    FLOOR_PERCENT,
    FRESH_S,
    Ration,
)

CHILD_S = 0.1  # CPU time of one child


def spend(ration: Ration, end_s: int) -> list[float]:
    """What children use each second that take all they get."""
    used = []
    for second in range(end_s):
        spent_s = 0.0
        while ration.left_s(second) >= min(CHILD_S, ration.depth_s(second)):
            ration.pay(CHILD_S)
            spent_s += CHILD_S
        used.append(spent_s)
    return used


@pytest.mark.parametrize("cpus", [2, 4, 64])
@pytest.mark.parametrize("own_percent", [0.1, 0.25, 0.4, 0.5])
@pytest.mark.parametrize("budget_percent", [0.1, 0.5, 1.0])
def test_agent_and_children_stay_below_the_alert(
    cpus: int, own_percent: float, budget_percent: float
) -> None:
    ration = Ration(budget_percent, cpus, 0.0)
    for _ in range(10):
        ration.note_own(own_percent, cpus)
    used = spend(ration, int(2 * FRESH_S))
    assert sum(used) > 0
    for window_s in (20, 60):
        starts = [0] if window_s == 20 else range(len(used) - window_s)
        for start in starts:
            of_host = 100 * sum(used[start : start + window_s]) / (window_s * cpus)
            assert of_host + own_percent < ALERT_PERCENT, (start, of_host)


def test_what_is_left_of_the_budget_is_used_in_the_long_run() -> None:
    ration = Ration(0.5, 8, 0.0)
    for _ in range(10):
        ration.note_own(0.2, 8)
    used = spend(ration, 2000)
    assert sum(used[1000:]) / (8 * 1000) == pytest.approx(0.003, rel=0.02)
    assert sum(used[: int(FRESH_S)]) > sum(used[-int(FRESH_S) :])


def test_an_agent_beyond_its_budget_leaves_the_floor() -> None:
    ration = Ration(0.5, 2, 0.0)
    for _ in range(20):
        ration.note_own(3.0, 2)
    assert ration.share_percent(1000.0) == FLOOR_PERCENT


def test_a_head_start_is_used_once_and_leaves_the_ration_as_it_is() -> None:
    ration, plain = Ration(1.0, 2, 0.0, 6.0), Ration(1.0, 2, 0.0)
    assert ration.left_s(0.0) == pytest.approx(plain.left_s(0.0) + 1.5)
    ration.pay(1.0)
    assert ration.left_s(20.0) == pytest.approx(plain.left_s(20.0) + 2.0)
    assert ration.left_s(100.0) == pytest.approx(plain.left_s(100.0) + 5)
    ration.pay(4.0)
    assert ration.left_s(100.0) == pytest.approx(plain.left_s(100.0) + 1)
    ration.pay(1.5)
    plain.pay(0.5)
    assert ration.left_s(4000.0) == pytest.approx(plain.left_s(4000.0))


def test_a_debt_is_worked_off_first() -> None:
    ration = Ration(0.5, 2, 0.0)
    ration.pay(10.0)
    assert ration.left_s(60.0) < -8
    assert ration.left_s(3600.0) == pytest.approx(ration.depth_s(3600.0))


def test_a_large_budget_is_a_large_ration() -> None:
    ration = Ration(100.0, 2, 0.0)
    before_s = ration.left_s(0.0)
    assert before_s > 5
    assert ration.left_s(1.0) - before_s > 1.9


def test_without_a_budget_there_is_no_ration() -> None:
    ration = Ration(None, 2, 0.0)
    ration.pay(1e9)
    assert ration.left_s(0.0) > 1e9


@pytest.mark.parametrize("wanted_s", [0.05, 0.1, 0.15])
@pytest.mark.parametrize("head_start_s", [0.0, 8.0])
def test_the_wait_for_credit_is_as_long_as_the_credit_takes_to_come(
    wanted_s: float, head_start_s: float
) -> None:
    ration = Ration(0.5, 2, 0.0, head_start_s)
    ration.pay(ration.left_s(1.0))
    wait_s = ration.wait_s(wanted_s, 1.0)
    assert wait_s > 0
    assert ration.left_s(1.0 + wait_s) == pytest.approx(wanted_s)
    assert ration.wait_s(wanted_s / 2, 1.0 + wait_s) == 0.0


def test_without_a_ration_nobody_waits() -> None:
    assert Ration(None, 2, 0.0).wait_s(1000.0, 0.0) == 0.0
