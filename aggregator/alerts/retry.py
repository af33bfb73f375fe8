"""When a webhook that was not taken is sent again. Pure."""

FIRST_DELAY_S = 15
MOST_DELAY_S = 3_600
GIVE_UP_AFTER_S = 86_400


def next_delay_s(attempts: int, age_s: float) -> int | None:
    """Seconds until the next attempt, after `attempts` (1 or more) that failed.

    `age_s` is the time since the event; None when that attempt would come a day after it.
    """
    delay_s = MOST_DELAY_S
    if attempts <= 16:  # 15 s * 2**8 is beyond the most already; no need for giant powers
        delay_s = min(FIRST_DELAY_S << (attempts - 1), MOST_DELAY_S)
    return delay_s if age_s + delay_s <= GIVE_UP_AFTER_S else None
