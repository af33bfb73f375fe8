"""When a batch that always fails is set aside."""

import pytest

from node_agent.shipper.patience import Patience, is_failure


def fail(patience: Patience, stem: str, from_s: float, every_s: float = 60.0) -> float:
    """Fail until it is set aside; how long that took."""
    now_s = from_s
    for _ in range(100_000):
        if patience.failed(stem, now_s):
            return now_s - from_s
        now_s += every_s
    raise AssertionError("never set aside")


def test_many_attempts_over_a_long_time_are_needed() -> None:
    assert fail(Patience(6, 600.0), "a", 0.0, every_s=1.0) == 600
    assert fail(Patience(6, 600.0), "a", 0.0, every_s=60.0) == 600
    assert fail(Patience(6, 600.0), "a", 0.0, every_s=3600.0) == 5 * 3600


def test_each_entry_is_counted_by_itself() -> None:
    patience = Patience(3, 10.0)
    assert not patience.failed("a", 0.0)
    assert not patience.failed("a", 20.0)
    assert not patience.failed("b", 21.0)
    assert not patience.failed("a", 22.0)
    assert not patience.failed("a", 23.0)
    assert patience.failed("a", 40.0)


def test_a_centre_that_fails_on_everything_does_not_empty_the_spool() -> None:
    patience = Patience(6, 600.0)
    now_s, waits = 0.0, []
    for number in range(13):
        waits.append(fail(patience, str(number), now_s))
        now_s += waits[-1]
    assert waits[:4] == [600, 1200, 2400, 4800]
    assert sum(waits[:7]) > 20 * 3600  # in most of a day seven batches
    assert waits[-1] == waits[-2] == 600 * 2**10

    patience.delivered()
    assert fail(patience, "next", now_s) == 600


@pytest.mark.parametrize(
    ("status", "expected"), [(500, True), (502, True), (504, True), (503, False), (429, False)]
)
def test_which_answers_may_be_about_the_batch(status: int, expected: bool) -> None:
    assert is_failure(status) is expected
