"""What `flamefleet up` says while it works: each step as it begins, and how long it took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from wire.terminal import printable, printable_line

_TELL_S = 10.0  # where nothing can be written again, a step that lasts is told so often


class Progress:
    """Lines on `stream`; on a terminal the running step is a line that is written again."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._step: str | None = None
        self._detail = ""
        self._started = self._told = 0.0
        self._width = 0

    @contextmanager
    def step(self, words: str) -> Iterator[None]:
        """Say that `words` is going on and, at the end, how long it took."""
        self._step, self._detail, self._started = words, "", time.monotonic()
        if self._live:
            self.tick()
        else:
            self._told = self._started
            self.say(f"  .. {words}")
        try:
            yield
        except BaseException:
            self._finish("failed")
            raise
        self._finish("done")

    def detail(self, words: str) -> None:
        """What the running step is waiting for."""
        self._detail = words
        self.tick()

    def tick(self) -> None:
        """Draw the running step again; call it now and then while waiting."""
        if self._step is None:
            return
        if self._live:
            self._draw(f"  .. {self._line()}")
        elif time.monotonic() - self._told >= _TELL_S:
            self._told = time.monotonic()
            self.say(f"  .. {self._line()}")

    def say(self, line: str) -> None:
        """A line of its own."""
        self._erase()
        print(printable(line), file=self._stream, flush=True)
        self.tick()

    def _line(self) -> str:
        seconds = time.monotonic() - self._started
        detail = f", {self._detail}" if self._detail else ""
        return f"{self._step} ({seconds:.1f} s{detail})"

    def _finish(self, outcome: str) -> None:
        self._detail = ""
        line = self._line()
        self._step = None
        mark = "ok" if outcome == "done" else "!!"
        self.say(f"  {mark} {line}")

    def _draw(self, line: str) -> None:
        line = printable_line(line)
        self._stream.write("\r" + line.ljust(self._width))
        self._stream.flush()
        self._width = len(line)

    def _erase(self) -> None:
        if self._live and self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._width = 0
