"""Events on their way into a batch (wire.schema.Event): bounded, and none lost unseen."""

import time
from collections.abc import Iterable

from wire.fit import fit_text
from wire.limits import MAX_EVENT_TEXT_BYTES, MAX_EVENTS
from wire.schema import Event

MAX_WAITING = 4 * MAX_EVENTS


class Events:
    """`add` them as they happen; every batch takes some. `dropped` counts those that had no room,
    the oldest first."""

    def __init__(self) -> None:
        self.dropped = 0
        self._waiting: list[Event] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(
        self,
        kind: str,
        reason: str,
        words: str,
        value: float = 0.0,
        limit: float = 0.0,
        before: str = "",
        after: str = "",
    ) -> None:
        """Something that happened now; see wire.schema.Event. Texts are cut to what is allowed."""
        texts = [clip_event(text) for text in (words, before, after)]
        event = Event(time.time_ns(), kind, reason, texts[0], value, limit, *texts[1:])
        self.put_back([event])

    def take(self) -> list[Event]:
        """The oldest, as many as a batch may carry."""
        taken, self._waiting = self._waiting[:MAX_EVENTS], self._waiting[MAX_EVENTS:]
        return taken

    def put_back(self, events: Iterable[Event]) -> None:
        """Those of a batch that could not be written."""
        self._waiting = sorted([*events, *self._waiting], key=lambda event: event.at_ns)
        excess = max(len(self._waiting) - MAX_WAITING, 0)
        self.dropped += excess
        del self._waiting[:excess]


def clip_event(text: str) -> str:
    """At most MAX_EVENT_TEXT_BYTES of printable text."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return fit_text(printable, MAX_EVENT_TEXT_BYTES)
