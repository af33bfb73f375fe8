import pytest

from aggregator.profiles.errors import QueryError
from aggregator.profiles.times import format_time, parse_time, to_datetime, to_unix_s

NOW_S = 1_800_000_000.5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW_S),
        (" now ", NOW_S),
        ("now-15m", NOW_S - 900),
        ("now - 15m", NOW_S - 900),
        ("now-30s", NOW_S - 30),
        ("now-2h", NOW_S - 7200),
        ("now-1d", NOW_S - 86400),
        ("now-2w", NOW_S - 1209600),
        ("0", 0),
        ("1700000000", 1_700_000_000),
        ("1700000000.25", 1_700_000_000.25),
        ("2023-11-14T22:13:20Z", 1_700_000_000),
        ("2023-11-14t22:13:20z", 1_700_000_000),
        ("2023-11-14 22:13:20.5Z", 1_700_000_000.5),
        ("2023-11-15T00:13:20+02:00", 1_700_000_000),
        ("2023-11-14T17:13:20.123456789-05:00", 1_700_000_000.123456789),
    ],
)
def test_times(text, expected):
    assert parse_time("from", text, NOW_S) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "now+5m",
        "now-5y",
        "now-m",
        "now-15m30s",
        "-5",
        "nan",
        "inf",
        "1e9",
        "1_000",
        "٣",
        "2023-11-14",
        "2023-11-14T22:13:20",
        "2023-11-14T22:13:20 02:00",
        "2023-13-14T22:13:20Z",
        "2023-02-30T22:13:20Z",
        "2023-11-14T22:13:20+99:00",
        "now-999999999w",
        "999999999999",
        "2200-01-01T00:00:01Z",
        "1969-12-31T23:59:59Z",
        "9" * 400,
    ],
)
def test_anything_else_is_refused_and_the_parameter_named(text):
    with pytest.raises(QueryError, match="until="):
        parse_time("until", text, NOW_S)


def test_there_and_back():
    assert to_unix_s(to_datetime(1_700_000_000)) == 1_700_000_000
    assert format_time(1_700_000_000) == "2023-11-14T22:13:20Z"
    assert format_time(1_700_000_000.25) == "2023-11-14T22:13:20.250Z"
