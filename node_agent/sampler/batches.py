"""One interval's counts as the columns of a wire Batch."""

from array import array
from typing import NamedTuple

from node_agent.collectors.stacks import SampleKey
from node_agent.kernel.structs import SAMPLE_KERNEL_THREAD
from node_agent.normalize import Normalizer
from node_agent.processes.identity import OTHER, Identities
from wire.limits import MAX_SERIES
from wire.schema import Series

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


def build_columns(
    counts: dict[SampleKey, int], normalizer: Normalizer, identities: Identities
) -> Columns:
    """Rows of (stack, series, count): samples of all threads and processes with the same labels
    and the same stack share a row."""
    series: list[Series] = []
    series_rows: dict[tuple[tuple[str, str], ...], int] = {}
    process_rows: dict[tuple[object, ...], int] = {}
    rows: dict[tuple[int, bytes], int] = {}
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
    return Columns(
        series,
        b"".join(stack_hash for _, stack_hash in rows),
        array("I", (row for row, _ in rows)).tobytes(),
        array("I", rows.values()).tobytes(),
        samples,
        lost,
    )


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
