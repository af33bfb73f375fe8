"""Times in questions: RFC 3339, Unix seconds, or relative to now."""

import math
import re
from datetime import datetime, timedelta, timezone

from aggregator.profiles.errors import QueryError

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_UNIT_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_LAST_S = 7_258_118_400  # 2200: far from where datetime ends, also after rounding up to steps
_NUMBER = re.compile(r"\d{1,12}(?:\.\d{1,9})?", re.ASCII)
_RELATIVE = re.compile(r"now(?:\s*-\s*(\d{1,9})([smhdw]))?", re.ASCII)
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d{1,9})?(?:([Zz])|([+-]\d\d:\d\d))", re.ASCII
)


def parse_time(name: str, text: str, now_s: float) -> float:
    """Unix seconds of `text`, which came in the parameter `name`; `now_s` is what `now` means.

    Raises QueryError, which names the parameter, for anything else than the three forms.
    """
    text = text.strip()
    relative = _RELATIVE.fullmatch(text)
    if relative is not None:
        amount, unit = relative.groups()
        return _in_range(name, text, now_s - (int(amount) * _UNIT_S[unit] if amount else 0))
    if _NUMBER.fullmatch(text):
        return _in_range(name, text, float(text))
    absolute = _RFC3339.fullmatch(text)
    if absolute is not None:
        return _in_range(name, text, _parse_absolute(name, text, absolute))
    raise QueryError(
        f"{name}={text[:60]!r} is not a time",
        remedy="write RFC 3339 with its zone (2026-01-31T12:00:00Z; + in a URL is %2B), Unix "
        "seconds, or now, now-30s, now-15m, now-1h, now-7d, now-2w",
    )


def to_datetime(seconds: float) -> datetime:
    """`seconds` of Unix time as an aware datetime in UTC."""
    return _EPOCH + timedelta(seconds=seconds)


def to_unix_s(moment: datetime) -> int:
    """Whole Unix seconds of an aware datetime, rounded down."""
    return math.floor((moment - _EPOCH).total_seconds())


def format_time(seconds: float) -> str:
    """`seconds` of Unix time as RFC 3339 in UTC, with milliseconds where there are any."""
    moment = to_datetime(seconds)
    precision = "milliseconds" if moment.microsecond else "seconds"
    return moment.isoformat(timespec=precision).replace("+00:00", "Z")


def _parse_absolute(name: str, text: str, match: re.Match[str]) -> float:
    day, clock, fraction, _, offset = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}{offset or '+00:00'}")
    except ValueError as error:
        raise QueryError(f"{name}={text!r} is not a time: {error}") from error
    return (moment - _EPOCH).total_seconds() + float(fraction or 0)


def _in_range(name: str, text: str, seconds: float) -> float:
    if not 0 <= seconds <= _LAST_S:
        raise QueryError(f"{name}={text[:60]!r} is outside the years 1970 to 2199")
    return seconds
