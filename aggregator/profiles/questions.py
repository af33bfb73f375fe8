"""What is asked: a time range and a selector, from the parameters of a request. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from aggregator.profiles.errors import QueryError
from aggregator.profiles.selector import Selector, parse_selector
from aggregator.profiles.times import format_time, parse_time

DEFAULT_FROM = "now-15m"
DEFAULT_UNTIL = "now"


@dataclass(frozen=True)
class Question:
    """Samples that `selector` chooses, of Unix times [from_s, until_s), asked at `now_s`."""

    from_s: float
    until_s: float
    now_s: float
    selector: Selector


def parse_question(parameters: Mapping[str, str], now_s: float) -> Question:
    """The question in `from`, `until` and `query`. Raises QueryError."""
    from_s, until_s = parse_times(parameters, now_s)
    return Question(from_s, until_s, now_s, parse_selector(parameters.get("query", "")))


def parse_times(
    parameters: Mapping[str, str], now_s: float, default_from: str = DEFAULT_FROM
) -> tuple[float, float]:
    """`from` and `until` in Unix seconds. Raises QueryError."""
    from_s = parse_time("from", parameters.get("from") or default_from, now_s)
    until_s = parse_time("until", parameters.get("until") or DEFAULT_UNTIL, now_s)
    if from_s >= until_s:
        raise QueryError(
            f"from ({format_time(from_s)}) is not before until ({format_time(until_s)})",
            remedy="swap them, or leave until away: it means now",
        )
    return from_s, until_s


def parse_number(
    parameters: Mapping[str, str], name: str, default: int, least: int, most: int
) -> int:
    """The whole number in the parameter `name`. Raises QueryError outside least..most."""
    text = parameters.get(name, "").strip() or str(default)
    if not (text.isascii() and text.isdigit() and len(text) < 12 and least <= int(text) <= most):
        raise QueryError(f"{name}={text[:40]!r} must be a whole number, {least} to {most}")
    return int(text)
