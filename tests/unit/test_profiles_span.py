from itertools import pairwise

import pytest

from aggregator.profiles.questions import parse_question
from aggregator.profiles.span import Span, resolve_span
from aggregator.profiles.timeline import resolve_steps

NOW_S = 1_800_000_007.0  # 1_800_000_000 is a whole minute
KEEP_S = 7_200
OLD_S = 1_800_000_000 - 86_400


@pytest.mark.parametrize(
    ("from_s", "until_s", "expected"),
    [
        # Whole minutes need nothing else.
        (1_799_999_400, 1_800_000_000, Span(1_799_999_400, 1_800_000_000, (0, 600), ())),
        # Ends go outwards to 10 s and are read from 10-second rows.
        (
            1_799_999_395.5,
            1_800_000_007,
            Span(1_799_999_390, 1_800_000_010, (0, 600), ((-10, 0), (600, 610))),
        ),
        # Within one minute there are only 10-second rows.
        (1_799_999_411, 1_799_999_432, Span(1_799_999_410, 1_799_999_440, (60, 60), ((10, 40),))),
        # Over one boundary there are two ends and no whole minute.
        (
            1_799_999_441,
            1_799_999_479,
            Span(1_799_999_440, 1_799_999_480, (60, 60), ((40, 60), (60, 80))),
        ),
        # Where 10-second rows may be gone, ends go outwards to the minute.
        (OLD_S + 11, OLD_S + 32, Span(OLD_S, OLD_S + 60, ("old", 0, 60), ())),
        (OLD_S + 59, OLD_S + 61, Span(OLD_S, OLD_S + 120, ("old", 0, 120), ())),
        # An old start and a new end.
        (
            OLD_S + 61,
            1_800_000_007,
            Span(OLD_S + 60, 1_800_000_010, ("old", 60, 86_400), ((600, 610),)),
        ),
    ],
)
def test_spans(from_s, until_s, expected):
    def absolute(pair):
        base, *pair = (OLD_S, *pair[1:]) if pair[0] == "old" else (1_799_999_400, *pair)
        return base + pair[0], base + pair[1]

    expected = Span(
        expected.from_s,
        expected.until_s,
        absolute(expected.minutes),
        tuple(absolute(end) for end in expected.ends),
    )
    assert resolve_span(from_s, until_s, NOW_S, KEEP_S) == expected


@pytest.mark.parametrize("from_s", [NOW_S - 7_300 + n * 7 for n in range(40)])
@pytest.mark.parametrize("length_s", [0.5, 9, 61, 130])
def test_stretches_never_overlap_and_cover_the_question(from_s, length_s):
    span = resolve_span(from_s, from_s + length_s, NOW_S, KEEP_S)
    assert span.from_s <= from_s < from_s + length_s <= span.until_s
    stretches = sorted(s for s in (span.minutes, *span.ends) if s[0] < s[1])
    assert stretches[0][0] == span.from_s
    assert stretches[-1][1] == span.until_s
    assert all(a[1] == b[0] for a, b in pairwise(stretches))
    assert all(start % 10 == 0 and end % 10 == 0 for start, end in span.ends)
    assert span.minutes[0] % 60 == 0 and span.minutes[1] % 60 == 0
    # 10-second rows are used only for minutes that surely still have all of theirs.
    assert all(start // 60 * 60 >= NOW_S - KEEP_S for start, _ in span.ends)


@pytest.mark.parametrize(
    ("from_", "points", "step", "fine"),
    [
        ("now-15m", 120, 10, True),
        ("now-15m", 30, 30, True),
        ("now-15m", 10, 120, False),
        ("now-1h", 120, 30, True),
        ("now-6h", 120, 180, False),
        ("now-3h", 1000, 60, False),  # 10 s would do, but those rows are gone
        ("now-30s", 1, 30, True),
    ],
)
def test_steps(from_, points, step, fine):
    question = parse_question({"from": from_}, NOW_S)
    span, found = resolve_steps(question, points, KEEP_S)
    assert found == step
    assert span.from_s % step == 0 and span.until_s % step == 0
    assert span.from_s <= question.from_s and question.until_s <= span.until_s
    assert (span.until_s - span.from_s) // step <= points + 1
    assert bool(span.ends) is fine
