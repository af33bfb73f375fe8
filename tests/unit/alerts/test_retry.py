"""When a message is sent again."""

import pytest

from aggregator.alerts.retry import GIVE_UP_AFTER_S, next_delay_s


@pytest.mark.parametrize(
    ("attempts", "age_s", "delay_s"),
    [
        (1, 0, 15),
        (2, 15, 30),
        (3, 45, 60),
        (8, 1_905, 1_920),
        (9, 3_825, 3_600),
        (30, 79_425, 3_600),
        (10_000, 0, 3_600),
        (5, 86_160, 240),
        (5, 86_161, None),
        (40, 90_000, None),
    ],
)
def test_delays_double_up_to_an_hour_for_a_day(
    attempts: int, age_s: float, delay_s: int | None
) -> None:
    assert next_delay_s(attempts, age_s) == delay_s


def test_a_receiver_that_never_answers_is_given_up_within_a_day() -> None:
    age_s, attempts = 0, 1
    while (delay_s := next_delay_s(attempts, age_s)) is not None:
        age_s += delay_s
        attempts += 1
    assert GIVE_UP_AFTER_S - 3_600 <= age_s <= GIVE_UP_AFTER_S
    assert attempts < 40
