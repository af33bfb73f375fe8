"""Which stretches of time answer a question, and from which tier. Pure; Unix seconds.

Whole minutes come from the 1-minute tier (or their 10-second rows while they are not compacted),
the ends from 10-second rows. Where those may be gone the ends snap outwards to the minute.
"""

import math
from dataclasses import dataclass, field, replace

FINE_S = 10
WIDE_S = 60
_CLOCK_MARGIN_S = 60  # between the clocks of several aggregators
_UNCOMPACTED_S = 2 * 86_400  # 10-second rows outlive their time by a day until they are compacted


@dataclass(frozen=True)
class Span:
    """Effective times [from_s, until_s), whole minutes among them, and the ends beside those.

    Before `oldest_fine_s` there are no 10-second rows, so nobody need look for them.
    """

    from_s: int
    until_s: int
    minutes: tuple[int, int]  # [first, end), empty where equal
    ends: tuple[tuple[int, int], ...]  # stretches of 10-second rows
    oldest_fine_s: int = field(default=0, compare=False)


def resolve_span(from_s: float, until_s: float, now_s: float, keep_fine_s: int) -> Span:
    """The stretches for [from_s, until_s); 10-second rows are kept for `keep_fine_s`."""
    span = _resolve(from_s, until_s, now_s - keep_fine_s + _CLOCK_MARGIN_S)
    oldest = max(0, _floor(now_s - keep_fine_s - _UNCOMPACTED_S, WIDE_S))
    return replace(span, oldest_fine_s=oldest)


def _resolve(from_s: float, until_s: float, fine_since_s: float) -> Span:
    start, end = _floor(from_s, FINE_S), _ceil(until_s, FINE_S)
    first, last = _ceil(start, WIDE_S), _floor(end, WIDE_S)
    if first > last:  # both ends in one minute
        if last >= fine_since_s:
            return Span(start, end, (first, first), ((start, end),))
        return Span(last, first, (last, first), ())
    ends = []
    if start < first:
        if first - WIDE_S >= fine_since_s:
            ends.append((start, first))
        else:
            start = first = first - WIDE_S
    if last < end:
        if last >= fine_since_s:
            ends.append((last, end))
        else:
            end = last = last + WIDE_S
    return Span(start, end, (first, last), tuple(ends))


def _floor(seconds: float, step: int) -> int:
    return math.floor(seconds / step) * step


def _ceil(seconds: float, step: int) -> int:
    return math.ceil(seconds / step) * step
