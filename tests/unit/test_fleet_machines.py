"""How many machines send as one node."""

import pytest

from aggregator.fleet.machines import count_machines


@pytest.mark.parametrize(
    ("runs", "machines"),
    [
        ([(1, 0, 100)], {}),
        ([(1, 0, 100), (1, 100, 200)], {}),
        ([(1, 0, 100), (1, 110, 200)], {}),
        ([(1, 0, 100), (1, 50, 60)], {1: 2}),
        ([(1, 0, 100), (1, 50, 50)], {}),  # one batch is no turn yet
        ([(1, 0, 100), (1, 110, 200), (1, 50, 200)], {1: 2}),
        ([(1, 0, 100), (1, 10, 90), (1, 20, 80)], {1: 3}),
        ([(1, 0, 9), (1, 5, 12), (2, 0, 9), (2, 9, 12), (3, 0, 9), (3, 1, 2)], {1: 2, 3: 2}),
    ],
)
def test_runs_that_come_by_turns_are_machines(runs, machines):
    assert count_machines(runs) == machines
