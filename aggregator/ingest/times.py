"""Whether a batch is of a time that is taken. Pure.

A node states its own clock with every request, so the age of a batch is known whatever the time is:
both of its times are of one clock. Where that clock and the centre's agree, a batch that is too old
or not yet due never becomes right, and is refused for good. Where they are far apart nobody can say
which one is wrong: a batch that the centre cannot place is kept by its node until one is mended.
"""

from aggregator.ingest.errors import ClocksApartError, OutlivedError, OutOfTimeError
from aggregator.profiles.partitions import ACCEPTED_AGE, CLOCK_SLACK

OLDEST_NS = int(ACCEPTED_AGE.total_seconds()) * 10**9
AHEAD_NS = int(CLOCK_SLACK.total_seconds()) * 10**9


def check_time(
    start_ns: int, received_ns: int, sent_ns: int | None, offset_ms: int | None, kept_ns: int
) -> None:
    """Check a batch that started at `start_ns` and was sent at `sent_ns` by its node's clock, and
    came at `received_ns` by the centre's, which keeps profiles for `kept_ns`.

    `offset_ms` goes with the error. Raises ClocksApartError, OutOfTimeError or OutlivedError.
    """
    apart_ns = 0 if sent_ns is None else received_ns - sent_ns
    agree = abs(apart_ns) <= AHEAD_NS
    age_ns = (received_ns if sent_ns is None or not agree else sent_ns) - start_ns
    if -AHEAD_NS <= age_ns <= min(OLDEST_NS, kept_ns):
        return
    # Nothing is sent before it began: without the node's time this is a clock that is ahead.
    if not agree or (sent_ns is None and age_ns < 0):
        raise ClocksApartError(
            f"the clocks of node and centre are {abs(apart_ns or age_ns) / 6e10:.1f} minutes "
            "apart, so the time of the batch is not known",
            offset_ms,
        )
    if age_ns < 0:
        raise OutOfTimeError(
            f"the batch starts {-age_ns / 6e10:.1f} minutes in the future; at most "
            f"{AHEAD_NS / 6e10:.0f} are accepted",
            offset_ms,
        )
    if age_ns > OLDEST_NS:
        raise OutOfTimeError(
            f"the batch started {age_ns / 3.6e12:.1f} hours ago; at most "
            f"{OLDEST_NS / 3.6e12:.0f} are accepted",
            offset_ms,
        )
    raise OutlivedError(
        f"the batch started {age_ns / 3.6e12:.1f} hours ago; profiles are kept for "
        f"{kept_ns / 3.6e12:.1f} hours",
        offset_ms,
    )


def clock_offset_ms(end_ns: int, received_ns: int, sent_ns: int | None) -> int | None:
    """The centre's clock minus the node's, in ms; None when an old batch, which ended at `end_ns`,
    can't tell."""
    if sent_ns is not None:
        return (received_ns - sent_ns) // 10**6
    # A batch waits in the spool for any time, but never arrives before it ended.
    offset_ms = (received_ns - end_ns) // 10**6
    return offset_ms if offset_ms < 0 else None
