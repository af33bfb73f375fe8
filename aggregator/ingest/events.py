"""Events and losses of batches: which are kept, and under what name. Pure."""

from collections.abc import Mapping, Sequence

from wire.schema import Event

MAX_LOST_REASONS = 32  # of a batch; those of fewest samples are told as one
MAX_REASON_BYTES = 64
OTHER = "other"


def timely_events(
    events: Sequence[Event], received_ns: int, oldest_ns: int, ahead_ns: int
) -> tuple[Event, ...]:
    """The events that happened no more than `oldest_ns` ago and `ahead_ns` from now: one of the
    year 2100 would be the newest for ever."""
    return tuple(event for event in events if -ahead_ns <= received_ns - event.at_ns <= oldest_ns)


def lost_by_reason(lost: Mapping[str, int]) -> dict[str, int]:
    """Lost samples by reason, bounded, without zeros: what has no place counts as OTHER."""
    kept: dict[str, int] = {}
    for reason, count in sorted(lost.items(), key=lambda item: -item[1]):
        is_word = 0 < len(reason.encode()) <= MAX_REASON_BYTES and "\0" not in reason
        name = reason if is_word and len(kept) < MAX_LOST_REASONS else OTHER
        if count:
            kept[name] = kept.get(name, 0) + count
    return kept
