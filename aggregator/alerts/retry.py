"""When a webhook that was not taken is sent again. Pure."""

FIRST_DELAY_S = 15
MOST_DELAY_S = 3_600
GIVE_UP_AFTER_S = 86_400


def delay_s(attempts: int) -> int:
    """Seconds to wait after `attempts` (1 or more) that failed."""
    # 15 s * 2**8 is beyond the most already; no need for giant powers.
    return min(FIRST_DELAY_S << min(attempts - 1, 16), MOST_DELAY_S)


def next_delay_s(attempts: int, age_s: float) -> int | None:
    """Seconds until the next attempt, after `attempts` (1 or more) that failed.

    `age_s` is the time since the event; None when that attempt would come a day after it.
    """
    wait_s = delay_s(attempts)
    return wait_s if age_s + wait_s <= GIVE_UP_AFTER_S else None
