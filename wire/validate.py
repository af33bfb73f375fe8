"""Checks beyond types: lengths of columns, ranges, limits. Pure; raises MalformedError."""

from wire import limits
from wire.errors import MalformedError, TooLargeError
from wire.faults import event_fault, is_label, is_reason
from wire.schema import Batch, Definitions, Series

_DAY_NS = 86_400 * 10**9


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
        if (fault := event_fault(event)) is not None:
            raise MalformedError(fault)
    return rows


def check_definitions(definitions: Definitions) -> int:
    """Check the lengths of decoded definitions' columns; return the number of stacks. What one
    module, name or stack has wrong costs the stacks that it is of (wire.faults), so nothing of
    that is checked here."""
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
    return stacks


def _check_ends(field: str, ends: dict[str, bytes], series: int) -> None:
    if len(ends) > limits.MAX_STACK_ENDS:
        raise TooLargeError(f"{len(ends)} reasons in {field}, limit {limits.MAX_STACK_ENDS}")
    for reason, column in ends.items():
        if not is_reason(reason):
            raise MalformedError(
                f"{field}: {reason[:40]!r} is not a word of at most "
                f"{limits.MAX_STACK_END_BYTES} letters a-z, digits and _"
            )
        if _column(f"{field}.{reason}", column, 4) != series:
            raise MalformedError(f"{field}.{reason} must have {series} rows")


def _check_labels(series: Series) -> None:
    if len(series.labels) > limits.MAX_LABELS:
        raise TooLargeError(f"{len(series.labels)} labels in a series, limit {limits.MAX_LABELS}")
    for name, value in series.labels.items():
        if not is_label(name, value):
            raise MalformedError(
                f"label {name[:40]!r} is empty, holds NUL or is longer than "
                f"{limits.MAX_LABEL_BYTES} bytes"
            )


def _name(field: str, value: str) -> None:
    if not value or len(value.encode()) > 253 or "\0" in value:
        raise MalformedError(f"{field} must be 1 to 253 bytes without NUL")


def _column(field: str, column: bytes, width: int) -> int:
    rows, rest = divmod(len(column), width)
    if rest:
        raise MalformedError(f"{field} has {len(column)} bytes, not a multiple of {width}")
    return rows
