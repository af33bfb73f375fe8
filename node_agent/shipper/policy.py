"""What an answer means and how long to wait. Pure: no clock, no socket, no randomness of its own.

Waiting is "equal jitter" over a doubling delay (Brooker, "Exponential Backoff And Jitter", AWS
Architecture Blog, 2015): between half of the delay and all of it, so that a fleet that lost its
centre at the same moment does not come back at the same moment.
"""

from enum import Enum

SHORTEST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0
LONGEST_RETRY_AFTER_S = 3600.0
TOO_MUCH = 429  # of one kind of thing for now
_SHORTEST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 1.0


class Verdict(Enum):
    """What the shipper does with what it has just sent."""

    DELIVERED = "delivered"
    REFUSED = "refused for good"  # sending the same again cannot help: give it up, count it
    CLONED = "cloned node"  # another process sends as this node and run: give it up, raise alarm
    DENIED = "credentials denied"  # keep, say so loudly, wait
    MISDIRECTED = "no aggregator at this address"  # keep, say so loudly, wait
    LATER = "try again later"  # keep, wait


def judge(status: int) -> Verdict:
    """The verdict for an HTTP status.

    A 404, a redirect or an odd 2xx comes from something that is not the aggregator (a wrong URL,
    a proxy), so it must not cost a batch.
    """
    if status in (200, 204):
        return Verdict.DELIVERED
    if status in (400, 413, 415, 422):
        return Verdict.REFUSED
    if status == 409:
        return Verdict.CLONED
    if status in (401, 403, 407):  # the last by a proxy
        return Verdict.DENIED
    if status in (408, 425, 429) or status >= 500:
        return Verdict.LATER
    return Verdict.MISDIRECTED


def parse_retry_after(value: str | None, now_s: float) -> float | None:
    """Seconds to wait from a Retry-After header (RFC 9110 section 10.2.3: seconds or a date).

    `now_s` is Unix time. At most LONGEST_RETRY_AFTER_S; None when absent or unreadable.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        # A header may hold thousands of digits; ten are more than an hour already.
        seconds = float(text[:10])
    else:
        from email.utils import parsedate_to_datetime

        try:
            seconds = parsedate_to_datetime(text).timestamp() - now_s
        except (TypeError, ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S)


def delay_s(failures: int, retry_after_s: float | None, jitter: float) -> float:
    """Seconds to wait after the `failures`-th failure in a row (from 1).

    `jitter` is a random number in 0..1. A Retry-After is a floor: it is never shortened, and the
    jitter of up to a second on top of it keeps a fleet apart.
    """
    doubled = min(SHORTEST_DELAY_S * 2.0 ** min(failures, 30), LONGEST_DELAY_S)
    waited = doubled / 2 + jitter * doubled / 2
    if retry_after_s is None:
        return waited
    return max(waited if failures > 1 else 0.0, retry_after_s + jitter)


def replay_pause_s(request_s: float) -> float:
    """Seconds to leave between two deliveries of a backlog, given how long the last one took.

    As long as the request itself: a node that catches up uses at most half of a connection, and
    a centre that is slow because everyone catches up is asked more slowly.
    """
    return min(max(request_s, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S)
