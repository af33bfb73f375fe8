"""Lines of the log of both processes, one format (logfmt):

    flamefleet-agent run: level=warning event=overhead words="1.34 % of the host" cpu_percent=1.34

Fields are name=value; a value with anything but plain characters stands in double quotes, with
\\", \\\\ and \\n. Where stderr is systemd's journal, a line begins with its priority, <3> to <6>,
which the journal takes off (man 3 sd-daemon).
"""

import os
import sys
import time
from collections.abc import Mapping
from typing import TextIO

_PRIORITIES = {"error": 3, "warning": 4, "info": 6}
MAX_VALUE_CHARACTERS = 1000
BURST = 30  # lines of one event, before it is held back
ONE_EVERY_S = 2.0  # from then on
REPEAT_EVERY_S = 60.0  # the very same line
Value = str | int | float


class Log:
    """Writes lines for `command` ("run", "ship"). An event that says too much, or the same again,
    is held back; its next line tells how many were `suppressed`."""

    def __init__(
        self,
        command: str,
        stream: TextIO | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """`stream` is stderr where it is None."""
        self._command = command
        self._stream = stream
        self._environ = environ
        self._events: dict[str, _Event] = {}

    def info(self, event: str, words: str = "", **fields: Value) -> None:
        """What an operator wants to find later."""
        self._write("info", event, words, fields)

    def warning(self, event: str, words: str = "", **fields: Value) -> None:
        """Something is not as it should be, and goes on."""
        self._write("warning", event, words, fields)

    def error(self, event: str, words: str = "", **fields: Value) -> None:
        """Something does not work; `remedy` says the way out."""
        self._write("error", event, words, fields)

    def _write(self, level: str, event: str, words: str, fields: Mapping[str, Value]) -> None:
        line = render(level, event, words, fields)
        known = self._events.setdefault(event, _Event())
        if not known.is_due(line, time.monotonic()):
            return
        if known.suppressed:
            line += f" suppressed={known.suppressed}"
            known.suppressed = 0
        stream = self._stream if self._stream is not None else sys.stderr
        prefix = f"<{_PRIORITIES[level]}>" if is_journal(stream, self._environ) else ""
        print(f"{prefix}flamefleet-agent {self._command}: {line}", file=stream, flush=True)


class _Event:
    """What one event has said lately."""

    def __init__(self) -> None:
        self.suppressed = 0
        self._line = ""
        self._at_s = float("-inf")
        self._credit = float(BURST)
        self._credited_s = 0.0

    def is_due(self, line: str, now_s: float) -> bool:
        self._credit = min(BURST, self._credit + (now_s - self._credited_s) / ONE_EVERY_S)
        self._credited_s = now_s
        is_again = line == self._line and now_s - self._at_s < REPEAT_EVERY_S
        if is_again or self._credit < 1:
            self.suppressed += 1
            return False
        self._credit -= 1
        self._line, self._at_s = line, now_s
        return True


class Lasting:
    """Lines about a state that lasts: one when it begins, one every `every_s` while it does, and
    one when it has been over for `calm_s`."""

    def __init__(self, log: Log, event: str, every_s: float = 600.0, calm_s: float = 60.0) -> None:
        self._log = log
        self._event = event
        self._every_s = every_s
        self._calm_s = calm_s
        self._began_s: float | None = None
        self._seen_s = self._told_s = 0.0
        self._suppressed = 0

    def note(self, words: str, now_s: float, **fields: Value) -> None:
        """It is so at `now_s` (monotonic)."""
        is_new = self._began_s is None
        if self._began_s is None:
            self._began_s = now_s
        self._seen_s = now_s
        if not is_new and now_s - self._told_s < self._every_s:
            self._suppressed += 1
            return
        if self._suppressed:
            fields["suppressed"] = self._suppressed
        self._suppressed, self._told_s = 0, now_s
        self._log.warning(self._event, words, **fields)

    def clear(self, words: str, now_s: float, **fields: Value) -> None:
        """It is not so at `now_s`."""
        if self._began_s is None or now_s - self._seen_s < self._calm_s:
            return
        fields["lasted_s"] = round(self._seen_s - self._began_s)
        if self._suppressed:
            fields["suppressed"] = self._suppressed
        self._began_s, self._suppressed = None, 0
        self._log.info(f"{self._event}_over", words, **fields)


def render(level: str, event: str, words: str, fields: Mapping[str, Value]) -> str:
    """The line without what stands before it; empty texts are left out."""
    all_fields = {"level": level, "event": event, "words": words, **fields}
    return " ".join(f"{name}={_value(value)}" for name, value in all_fields.items() if value != "")


def _value(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    text = str(value)
    if len(text) > MAX_VALUE_CHARACTERS:
        text = text[: MAX_VALUE_CHARACTERS - 1] + "…"
    if text and text.isascii() and all(c.isalnum() or c in "-_.,:/+@%" for c in text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + "".join(c if c.isprintable() else "?" for c in escaped) + '"'


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether `stream` is connected to systemd's journal (man 5 systemd.exec, JOURNAL_STREAM)."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        facts = os.fstat(stream.fileno())
        return (facts.st_dev, facts.st_ino) == (int(device), int(inode))
    except (OSError, ValueError):
        return False
