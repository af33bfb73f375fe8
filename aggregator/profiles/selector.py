"""Label selectors: `{service="nginx", host=~"web-.*", version!=""}`, as Prometheus reads them.

A label that a series lacks counts as the empty string. Regular expressions match the whole value
and are RE2's (linear time, so no value of a label can hang a query). Names outside
[A-Za-z0-9_.:/-] are written in quotes. The page reads links by the same grammar
(`dashboard/static/js/selector.js`). Source: https://prometheus.io/docs/prometheus/latest/querying/
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import re2  # type: ignore[import-untyped]  # google-re2 ships no stubs

from aggregator.profiles.errors import QueryError

HOST = "host"
MAX_SELECTOR_CHARS = 4_096
MAX_MATCHERS = 32
MAX_REGEX_CHARS = 512
_REGEX_MEMORY_BYTES = 1 << 20

_SPACE = re.compile(r"[ \t\r\n]*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/-]*")
_OPERATOR = re.compile(r"=~|!~|!=|=")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|`[^`]*`', re.DOTALL)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'"}


@dataclass(frozen=True)
class Matcher:
    """One condition on one label; `operator` is =, !=, =~ or !~."""

    name: str
    operator: str
    value: str
    pattern: Any = field(default=None, repr=False, compare=False)

    def matches(self, value: str) -> bool:
        """Whether a label with this value ("" where there is none) fulfils the condition."""
        if self.pattern is None:
            return (value == self.value) == (self.operator == "=")
        return (self.pattern.fullmatch(value) is not None) == (self.operator == "=~")


@dataclass(frozen=True)
class Selector:
    """Conditions that all have to hold. Those on `host` choose nodes, the others series."""

    hosts: tuple[Matcher, ...] = ()
    labels: tuple[Matcher, ...] = ()

    def matches_host(self, host: str) -> bool:
        """Whether the node of this name is chosen."""
        return all(matcher.matches(host) for matcher in self.hosts)

    def matches_labels(self, labels: Mapping[str, str]) -> bool:
        """Whether a series with these labels is chosen."""
        return all(matcher.matches(labels.get(matcher.name, "")) for matcher in self.labels)


def parse_selector(text: str) -> Selector:
    """The selector in `text`; an empty text or `{}` selects everything.

    Raises QueryError, which names the position (from 1) of what it could not read.
    """
    if len(text) > MAX_SELECTOR_CHARS:
        raise QueryError(f"query has {len(text)} characters; at most {MAX_SELECTOR_CHARS}")
    if _skip(text, 0) == len(text):
        return Selector()
    matchers = list(_parse_matchers(text))
    if len(matchers) > MAX_MATCHERS:
        raise QueryError(f"query has {len(matchers)} conditions; at most {MAX_MATCHERS}")
    return Selector(
        tuple(matcher for matcher in matchers if matcher.name == HOST),
        tuple(matcher for matcher in matchers if matcher.name != HOST),
    )


def _parse_matchers(text: str) -> Iterable[Matcher]:
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        raise _error(text, at, '"{"')
    at = _skip(text, at + 1)
    while text[at : at + 1] != "}":
        matcher, at = _parse_matcher(text, at)
        yield matcher
        at = _skip(text, at)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif text[at : at + 1] != "}":
            raise _error(text, at, '"," or "}"')
    at = _skip(text, at + 1)
    if at < len(text):
        raise _error(text, at, "nothing more")


def _parse_matcher(text: str, at: int) -> tuple[Matcher, int]:
    bare = _NAME.match(text, at)
    if bare is not None:
        name, at = bare.group(), bare.end()
    else:
        name, at = _parse_quoted(text, at, "a label name")
    at = _skip(text, at)
    operator = _OPERATOR.match(text, at)
    if operator is None:
        raise _error(text, at, "=, !=, =~ or !~")
    start = _skip(text, operator.end())
    value, at = _parse_quoted(text, start, "a quoted value")
    pattern = _compile(value, start) if operator.group().endswith("~") else None
    return Matcher(name, operator.group(), value, pattern), at


def _parse_quoted(text: str, at: int, expected: str) -> tuple[str, int]:
    quoted = _QUOTED.match(text, at)
    if quoted is None:
        raise _error(text, at, f"{expected} with its closing quote" if at < len(text) else expected)
    body = quoted.group()[1:-1]
    if text[at] == "`":
        return body, quoted.end()

    def unescape(escape: re.Match[str]) -> str:
        code = escape.group(1)
        if len(code) > 1:
            return chr(int(code[1:], 16))
        if code not in _ESCAPES:
            raise _error(text, at + 1 + escape.start(), "a known escape (a backslash is \\\\)")
        return _ESCAPES[code]

    return _ESCAPE.sub(unescape, body), quoted.end()


def _compile(value: str, at: int) -> Any:
    if len(value) > MAX_REGEX_CHARS:
        raise QueryError(
            f"query: the regular expression at position {at + 1} has {len(value)} characters; "
            f"at most {MAX_REGEX_CHARS} are allowed"
        )
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _REGEX_MEMORY_BYTES
    try:
        return re2.compile(value, options=options)
    except (re2.error, UnicodeEncodeError) as error:
        reason = error.args[0] if error.args else ""
        words = reason.decode(errors="replace") if isinstance(reason, bytes) else str(error)
        raise QueryError(
            f"query: the regular expression at position {at + 1} is not valid RE2: {words}"
        ) from error


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return at if space is None else space.end()


def _error(text: str, at: int, expected: str) -> QueryError:
    found = repr(text[at : at + 12]) if at < len(text) else "the end"
    return QueryError(
        f"query: expected {expected} at position {at + 1}, found {found}",
        remedy='write for example {service="nginx", host=~"web-.*"}',
    )
