import pytest

from node_agent.shipper.policy import (
    LONGEST_RETRY_AFTER_S,
    Verdict,
    delay_s,
    judge,
    parse_retry_after,
    replay_pause_s,
)


@pytest.mark.parametrize(
    ("verdict", "statuses"),
    [
        (Verdict.DELIVERED, [200, 204]),
        (Verdict.REFUSED, [400, 413, 415, 422]),
        (Verdict.CLONED, [409]),
        (Verdict.DENIED, [401, 403]),
        (Verdict.LATER, [408, 425, 429, 500, 502, 503, 504, 599]),
        (Verdict.MISDIRECTED, [201, 202, 206, 301, 302, 307, 308, 402, 404, 405, 410, 418, 431]),
    ],
)
def test_verdicts(verdict, statuses):
    assert [judge(status) for status in statuses] == [verdict] * len(statuses)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        ("17", 17.0),
        (" 17 ", 17.0),
        ("-3", None),
        ("1.5", None),
        ("soon", None),
        ("9" * 5000, LONGEST_RETRY_AFTER_S),
        ("Thu, 01 Jan 1970 00:16:50 GMT", 10.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_RETRY_AFTER_S),
        ("Thu, 99 Foo 1970 00:16:50 GMT", None),
    ],
)
def test_retry_after(value, seconds):
    assert parse_retry_after(value, now_s=1000.0) == seconds


@pytest.mark.parametrize(
    ("failures", "retry_after_s", "shortest", "longest"),
    [
        (1, None, 1, 2),
        (2, None, 2, 4),
        (5, None, 16, 32),
        (6, None, 30, 60),
        (100_000, None, 30, 60),
        (1, 17.0, 17, 18),
        (1, 0.0, 0, 1),
        (6, 5.0, 30, 60),
        (6, 3600.0, 3600, 3601),
    ],
)
def test_delays(failures, retry_after_s, shortest, longest):
    assert delay_s(failures, retry_after_s, 0.0) == shortest
    assert delay_s(failures, retry_after_s, 1.0) == longest
    assert shortest < delay_s(failures, retry_after_s, 0.5) < longest


def test_retry_after_is_never_shortened():
    for failures in range(1, 10):
        for jitter in (0.0, 0.3, 1.0):
            assert delay_s(failures, 40.0, jitter) >= 40.0


@pytest.mark.parametrize(("request_s", "pause_s"), [(0.0, 0.02), (0.3, 0.3), (9.0, 1.0)])
def test_a_replay_leaves_the_centre_as_long_as_it_took(request_s, pause_s):
    assert replay_pause_s(request_s) == pause_s
