"""One interval's counts as the columns of a wire Batch."""

from array import array
from typing import NamedTuple

from node_agent.collectors.stacks import SampleKey
from node_agent.kernel.structs import (
    PYTHON_END_MASK,
    PYTHON_END_SHIFT,
    SAMPLE_KERNEL_THREAD,
    STACK_END_MASK,
    STACK_END_SHIFT,
)
from node_agent.normalize import Normalizer
from node_agent.processes.identity import OTHER, Identities
from wire.limits import MAX_SERIES
from wire.schema import PYTHON_ENDS, STACK_ENDS, Series

# Hashes don't compress: more rows than this could pass the message's limit of 8 MiB.
MAX_ROWS = 400_000
_MAX_COUNT = (1 << 32) - 1


class Columns(NamedTuple):
    """The columns of a batch (see wire.schema.Batch), and samples that had no room."""

    series: list[Series]
    stack_hashes: bytes
    series_index: bytes
    counts: bytes
    samples: int
    lost: int
    stack_ends: dict[str, bytes]
    python_ends: dict[str, bytes]

    def ends(self) -> dict[str, int]:
        """Samples by how the user part of their stack ended, all series together."""
        return {reason: sum(array("I", column)) for reason, column in self.stack_ends.items()}


def build_columns(
    counts: dict[SampleKey, int], normalizer: Normalizer, identities: Identities
) -> Columns:
    """Rows of (stack, series, count): samples of all threads and processes with the same labels
    and the same stack share a row. What has no row is in no column, the ends included."""
    series: list[Series] = []
    series_rows: dict[tuple[tuple[str, str], ...], int] = {}
    process_rows: dict[tuple[object, ...], int] = {}
    rows: dict[tuple[int, bytes], int] = {}
    ends: dict[tuple[int, int], int] = {}  # by end and series
    python_ends: dict[tuple[int, int], int] = {}
    samples = lost = 0
    for key, count in counts.items():
        process = key[1:5]  # tgid, start_ns, exec_id, cgroup_id
        row = process_rows.get(process)
        if row is None:
            labels = identities.labels(
                (key.tgid, key.start_ns, key.exec_id),
                key.cgroup_id,
                key.thread_name,
                bool(key.flags & SAMPLE_KERNEL_THREAD),
            )
            row = process_rows[process] = _series_row(labels, series, series_rows)
        place = (row, normalizer.find(key))
        known = rows.get(place)
        if known is None and len(rows) >= MAX_ROWS:
            lost += count
            continue
        rows[place] = min((known or 0) + count, _MAX_COUNT)
        samples += count
        end = (key.flags & STACK_END_MASK) >> STACK_END_SHIFT
        if end:
            ends[end, row] = ends.get((end, row), 0) + count
        end = (key.flags & PYTHON_END_MASK) >> PYTHON_END_SHIFT
        if end:
            python_ends[end, row] = python_ends.get((end, row), 0) + count
    return Columns(
        series,
        b"".join(stack_hash for _, stack_hash in rows),
        array("I", (row for row, _ in rows)).tobytes(),
        array("I", rows.values()).tobytes(),
        samples,
        lost,
        _end_columns(ends, STACK_ENDS, len(series)),
        _end_columns(python_ends, PYTHON_ENDS, len(series)),
    )


def _end_columns(
    ends: dict[tuple[int, int], int], words: tuple[str, ...], series: int
) -> dict[str, bytes]:
    columns: dict[str, array[int]] = {}
    for (end, row), count in ends.items():
        reason = words[end - 1] if end <= len(words) else OTHER
        column = columns.setdefault(reason, array("I", bytes(4 * series)))
        column[row] = min(count, _MAX_COUNT)
    return {reason: column.tobytes() for reason, column in columns.items()}


def _series_row(
    labels: dict[str, str],
    series: list[Series],
    known: dict[tuple[tuple[str, str], ...], int],
) -> int:
    if len(series) >= MAX_SERIES - 1:
        labels = {"service": OTHER, "executable": OTHER}
    key = tuple(sorted(labels.items()))
    row = known.get(key)
    if row is None:
        row = known[key] = len(series)
        series.append(Series(labels))
    return row
