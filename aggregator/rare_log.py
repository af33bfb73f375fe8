"""A log that no client can fill: of messages of one kind only some are written in a while."""

import logging
import time
from collections.abc import Callable

MOST_OF_KIND = 5
PERIOD_S = 10.0
_MAX_KINDS = 1_000
_KIND_CHARACTERS = 60


class RareLog(logging.Filter):
    """Lets MOST_OF_KIND messages of a kind through in PERIOD_S; the next one that is let through
    says how many were left out. A kind is where a message is logged, and how it begins."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[tuple[str, int, str], list[float]] = {}
        self._left_out: dict[tuple[str, int, str], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind = (record.pathname, record.lineno, str(record.msg)[:_KIND_CHARACTERS])
        now = self._clock()
        if len(self._kinds) > _MAX_KINDS:
            self._kinds.clear()
            self._left_out.clear()
        recent = [at for at in self._kinds.get(kind, ()) if now - at < PERIOD_S]
        self._kinds[kind] = recent
        if len(recent) >= MOST_OF_KIND:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return False
        recent.append(now)
        left_out = self._left_out.pop(kind, 0)
        if left_out:
            record.msg = f"{record.msg} ({left_out} more like this were not logged)"
        return True


def keep_log_small() -> None:
    """Put a `RareLog` before every handler of this process's root logger."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(RareLog())
