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
from wire.limits import MAX_BATCH_ITEMS, MAX_BATCH_ROWS, MAX_SERIES, MAX_TEXTS_BYTES
from wire.schema import PYTHON_ENDS, STACK_ENDS, Series

MAX_ROWS = MAX_BATCH_ROWS
# Of a message's room for texts and for items, the share that sets of labels may take.
MAX_SERIES_TEXT_BYTES = MAX_TEXTS_BYTES // 2
MAX_SERIES_ITEMS = MAX_BATCH_ITEMS // 2
_MAX_COUNT = (1 << 32) - 1
_OTHER = {"service": OTHER, "executable": OTHER}


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
    series = _SeriesTable()
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
            row = process_rows[process] = series.row(labels)
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
        series.all,
        b"".join(stack_hash for _, stack_hash in rows),
        array("I", (row for row, _ in rows)).tobytes(),
        array("I", rows.values()).tobytes(),
        samples,
        lost,
        _end_columns(ends, STACK_ENDS, len(series.all)),
        _end_columns(python_ends, PYTHON_ENDS, len(series.all)),
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


class _SeriesTable:
    """The sets of labels of a batch, each once. Those that there is no room for are one: other."""

    def __init__(self) -> None:
        self.all: list[Series] = []
        self._rows: dict[tuple[tuple[str, str], ...], int] = {}
        self._text_bytes = self._items = 0

    def row(self, labels: dict[str, str]) -> int:
        """The index of `labels`."""
        key = tuple(sorted(labels.items()))
        row = self._rows.get(key)
        if row is not None:
            return row
        text_bytes = sum(len(name.encode()) + len(value.encode()) for name, value in key)
        items = 2 * len(key) + 3  # msgpack: a map with one key and a map
        is_other = labels == _OTHER
        if not is_other and (
            len(self.all) >= MAX_SERIES - 1
            or self._text_bytes + text_bytes > MAX_SERIES_TEXT_BYTES
            or self._items + items > MAX_SERIES_ITEMS
        ):
            return self.row(_OTHER)
        self._text_bytes += text_bytes
        self._items += items
        row = self._rows[key] = len(self.all)
        self.all.append(Series(labels))
        return row
