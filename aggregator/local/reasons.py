"""Why a part ended, from the end of its log. Pure."""

import re

from wire.sentences import sentences
from wire.terminal import printable_line

MOST_CHARACTERS = 400
_ERROR_LINE = re.compile(
    r"level=error\b"  # the agent's
    r"|\b(?:ERROR|CRITICAL|FATAL|PANIC)\b"  # aggregator's, worker's, Postgres's
    r"|^flamefleet: |^flamefleet-agent \w+: (?!level=)|^initdb: "  # command lines
    r"|^[\w.]*(?:Error|Exception)\b"  # a traceback's last line
    r"|^\d+:M .* # "  # Valkey's warnings
)
# Lines that tell of no trouble are no reason.
_FINE = re.compile(r"level=(?:info|warning)\b|\b(?:INFO|WARNING|LOG:)")
# What Postgres, and the command line, say below the line that it belongs to.
_MORE = re.compile(r"^\s+what to do: |\b(?:DETAIL|HINT): ")
_FIELD = re.compile(r'\b(words|remedy)=("(?:[^"\\]|\\.)*"|\S+)')


def last_reason(log: str) -> str:
    """The last error in `log` on one line, else its last line; empty where all is fine."""
    lines = log.strip().split("\n")[-1:]
    return last_error(log) or _clip("".join(line for line in lines if not _FINE.search(line)))


def last_error(log: str) -> str:
    """The last error in `log` on one line; empty where there is none."""
    lines = [line for line in log.split("\n") if line.strip()]
    at = next((at for at in reversed(range(len(lines))) if _ERROR_LINE.search(lines[at])), None)
    if at is None:
        return ""
    more = [line for line in lines[at + 1 : at + 4] if _MORE.search(line)]
    return _clip("; ".join([_words(lines[at]), *(line.strip() for line in more)]))


def _words(line: str) -> str:
    """Of a line of the agent's log its words and the remedy, other lines as they are."""
    fields = {name: _unquote(value) for name, value in _FIELD.findall(line)}
    return sentences(*fields.values()) if fields else line.strip()


def _unquote(value: str) -> str:
    if not value.startswith('"'):
        return value
    return re.sub(r"\\(.)", lambda escape: {"n": " "}.get(escape[1], escape[1]), value[1:-1])


def _clip(text: str) -> str:
    text = printable_line(text.strip())
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"
