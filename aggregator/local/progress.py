"""What `flamefleet up` says while it works: one line a step, with the seconds that it took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class Progress:
    """Lines on `stream`; on a terminal the running step is a line that is written again."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._step: str | None = None
        self._detail = ""
        self._started = 0.0
        self._width = 0

    @contextmanager
    def step(self, words: str) -> Iterator[None]:
        """Say that `words` is going on and, at the end, how long it took."""
        self._step, self._detail, self._started = words, "", time.monotonic()
        self.tick()
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
        if self._live and self._step is not None:
            self._draw(f"  .. {self._line()}")

    def say(self, line: str) -> None:
        """A line of its own."""
        self._erase()
        print(line, file=self._stream, flush=True)
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
        self._stream.write("\r" + line.ljust(self._width))
        self._stream.flush()
        self._width = len(line)

    def _erase(self) -> None:
        if self._live and self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._width = 0
