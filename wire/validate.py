"""Checks beyond types: lengths of columns, ranges, limits. Pure; raises MalformedError."""

import math
from collections.abc import Sequence

from wire import limits
from wire.errors import MalformedError, TooLargeError
from wire.schema import Batch, Definitions, Event, Module, ModuleKind, Name, Series

_DAY_NS = 86_400 * 10**9
_EVENT_TEXTS = {
    "kind": limits.MAX_EVENT_WORD_BYTES,
    "reason": limits.MAX_EVENT_WORD_BYTES,
    "words": limits.MAX_EVENT_TEXT_BYTES,
    "before": limits.MAX_EVENT_TEXT_BYTES,
    "after": limits.MAX_EVENT_TEXT_BYTES,
}


def check_batch(batch: Batch) -> int:
    """Check a decoded batch and return its number of rows."""
    _name("node", batch.node)
    if len(batch.run) != 16:
        raise MalformedError(f"run must be 16 bytes, it has {len(batch.run)}")
    if not 1 <= batch.sequence < 1 << 62:
        raise MalformedError(f"sequence must be 1 or more, it is {batch.sequence}")
    if not 0 < batch.start_ns < 1 << 62 or not 0 < batch.duration_ns <= _DAY_NS:
        raise MalformedError("start_ns must be positive and duration_ns between 1 ns and a day")
    if not 1 <= batch.rate_millihertz <= 1_000_000:
        raise MalformedError(f"rate_millihertz must be 1..1000000, it is {batch.rate_millihertz}")
    if not 1 <= batch.online_cpus <= 1 << 16:
        raise MalformedError(f"online_cpus must be 1..65536, it is {batch.online_cpus}")
    if any(count < 0 for count in batch.lost.values()):
        raise MalformedError("lost counts must not be negative")
    rows = _column("stack_hashes", batch.stack_hashes, 16)
    if rows > limits.MAX_BATCH_ROWS:
        raise TooLargeError(f"{rows} rows in a batch; at most {limits.MAX_BATCH_ROWS} are allowed")
    for field, column in (("series_index", batch.series_index), ("counts", batch.counts)):
        if _column(field, column, 4) != rows:
            raise MalformedError(f"{field} must have {rows} rows like stack_hashes")
    if len(batch.series) > limits.MAX_SERIES:
        raise TooLargeError(f"{len(batch.series)} series; at most {limits.MAX_SERIES} are allowed")
    for series in batch.series:
        _check_labels(series)
    _check_ends("stack_ends", batch.stack_ends, len(batch.series))
    _check_ends("python_ends", batch.python_ends, len(batch.series))
    if len(batch.events) > limits.MAX_EVENTS:
        raise TooLargeError(
            f"{len(batch.events)} events in a batch; at most {limits.MAX_EVENTS} are allowed"
        )
    for event in batch.events:
        _check_event(event)
    return rows


def check_definitions(definitions: Definitions) -> int:
    """Check decoded definitions (lengths, not the values inside columns); return the stacks."""
    _name("node", definitions.node)
    stacks = _column("stack_hashes", definitions.stack_hashes, 16)
    if _column("stack_lengths", definitions.stack_lengths, 2) != stacks:
        raise MalformedError(f"stack_lengths must have {stacks} rows like stack_hashes")
    frames = _column("frame_module", definitions.frame_module, 4)
    if _column("frame_offset", definitions.frame_offset, 8) != frames:
        raise MalformedError(f"frame_offset must have {frames} rows like frame_module")
    in_stacks = _column("stack_frames", definitions.stack_frames, 4)
    if max(frames, in_stacks) > limits.MAX_DEFINITION_FRAMES:
        raise TooLargeError(f"more than {limits.MAX_DEFINITION_FRAMES} frames in definitions")
    check_modules(definitions.modules)
    check_names(definitions.names)
    return stacks


def check_modules(modules: Sequence[Module]) -> None:
    """Check the modules of definitions."""
    for module in modules:
        _check_module(module)


def check_names(names: Sequence[Name]) -> None:
    """Check the names of definitions."""
    for name in names:
        for text in (name.function, name.file):
            if len(text.encode()) > limits.MAX_NAME_BYTES:
                raise TooLargeError(f"a name is longer than {limits.MAX_NAME_BYTES} bytes")


def _check_module(module: Module) -> None:
    if module.kind not in ModuleKind.__members__.values():
        raise MalformedError(f"module kind {module.kind} is unknown")
    if not 1 <= len(module.id) <= 64:
        raise MalformedError(f"a module id must have 1 to 64 bytes, it has {len(module.id)}")
    if len(module.name.encode()) > limits.MAX_LABEL_BYTES:
        raise TooLargeError(f"a module name is longer than {limits.MAX_LABEL_BYTES} bytes")


def _check_ends(field: str, ends: dict[str, bytes], series: int) -> None:
    """Any word is accepted, so that a later agent's reasons are no cause to refuse its batch."""
    if len(ends) > limits.MAX_STACK_ENDS:
        raise TooLargeError(f"{len(ends)} reasons in {field}, limit {limits.MAX_STACK_ENDS}")
    for reason, column in ends.items():
        is_word = reason.isascii() and reason.isidentifier() and reason == reason.lower()
        if not is_word or len(reason) > limits.MAX_STACK_END_BYTES:
            raise MalformedError(
                f"{field}: {reason[:40]!r} is not a word of at most "
                f"{limits.MAX_STACK_END_BYTES} letters a-z, digits and _"
            )
        if _column(f"{field}.{reason}", column, 4) != series:
            raise MalformedError(f"{field}.{reason} must have {series} rows")


def _check_event(event: Event) -> None:
    """Any kind and reason is accepted, so that those of a later agent are stored too."""
    if not event.kind:
        raise MalformedError("an event's kind must not be empty")
    if not 0 < event.at_ns < 1 << 62:
        raise MalformedError(f"an event's at_ns must be positive, below 2**62: {event.at_ns}")
    if not math.isfinite(event.value) or not math.isfinite(event.limit):
        raise MalformedError(f"value and limit of event {event.kind[:40]!r} must be finite")
    for field, most in _EVENT_TEXTS.items():
        text: str = getattr(event, field)
        if "\0" in text:
            raise MalformedError(f"an event's {field} must not hold NUL")
        if len(text.encode()) > most:
            raise TooLargeError(f"an event's {field} is longer than {most} bytes")


def _check_labels(series: Series) -> None:
    if len(series.labels) > limits.MAX_LABELS:
        raise TooLargeError(f"{len(series.labels)} labels in a series, limit {limits.MAX_LABELS}")
    for name, value in series.labels.items():
        if not name or "\0" in name or "\0" in value:
            raise MalformedError("label names must not be empty and labels must not hold NUL")
        if (
            len(name.encode()) > limits.MAX_LABEL_BYTES
            or len(value.encode()) > limits.MAX_LABEL_BYTES
        ):
            raise TooLargeError(
                f"label {name[:40]!r} is longer than {limits.MAX_LABEL_BYTES} bytes"
            )


def _name(field: str, value: str) -> None:
    if not value or len(value.encode()) > 253 or "\0" in value:
        raise MalformedError(f"{field} must be 1 to 253 bytes without NUL")


def _column(field: str, column: bytes, width: int) -> int:
    rows, rest = divmod(len(column), width)
    if rest:
        raise MalformedError(f"{field} has {len(column)} bytes, not a multiple of {width}")
    return rows
