"""What `record` says on standard error while it works: on a terminal one line that is written
again, elsewhere a line for each stage, and another one every few seconds while it lasts."""

import time
from typing import TextIO

from wire.terminal import printable_line

_TELL_S = 5.0


class Progress:
    """Stages, each with how far it is."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._told_s = 0.0
        self._width = 0  # of what the terminal's last line shows

    def begin(self, words: str) -> None:
        """A stage begins."""
        self.end()
        self._told_s = time.monotonic()
        self._write(words)

    def show(self, words: str) -> None:
        """How far the stage is."""
        if not self._live and time.monotonic() - self._told_s < _TELL_S:
            return
        self._told_s = time.monotonic()
        self._write(words)

    def end(self) -> None:
        """What is said next, by whomever, begins a line."""
        if self._width:
            self._stream.write("\n")
            self._stream.flush()
            self._width = 0

    def say(self, words: str) -> None:
        """A line of its own."""
        self.end()
        self._stream.write(f"flamefleet-agent record: {printable_line(words)}\n")
        self._stream.flush()

    def _write(self, words: str) -> None:
        if not self._live:
            self.say(words)
            return
        words = printable_line(words)
        self._stream.write("\r" + words.ljust(self._width))
        self._stream.flush()
        self._width = len(words)
