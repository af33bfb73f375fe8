"""A log that no client can fill."""

import logging

from aggregator.rare_log import MOST_OF_KIND, PERIOD_S, RareLog


def test_of_a_kind_some_are_written_and_the_rest_is_counted():
    now = [100.0]
    log = RareLog(lambda: now[0])

    def passes(message, line=1):
        record = logging.LogRecord("x", logging.ERROR, "file.py", line, message, (), None)
        return log.filter(record) and record.getMessage()

    written = [passes("no descriptor left") for _ in range(1_000)]
    assert [one for one in written if one] == ["no descriptor left"] * MOST_OF_KIND
    assert passes("another thing", 2) == "another thing"

    now[0] += PERIOD_S
    left_out = 1_000 - MOST_OF_KIND
    expected = f"no descriptor left ({left_out} more like this were not logged)"
    assert passes("no descriptor left") == expected
    assert passes("no descriptor left") == "no descriptor left"


def test_kinds_do_not_add_up():
    log = RareLog(lambda: 0.0)
    for number in range(5_000):
        log.filter(logging.LogRecord("x", logging.ERROR, "f.py", number, "m", (), None))
    assert len(log._kinds) <= 1_001
