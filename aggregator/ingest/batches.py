"""From a decoded batch to columns ready to be stored. Pure: no clock, no database."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from aggregator.ingest.cleaning import MAX_FACT_BYTES, clean_batch
from aggregator.ingest.errors import BadValueError
from aggregator.ingest.events import lost_by_reason, timely_events
from aggregator.ingest.series import SeriesKey, Unnumbered, series_key
from aggregator.ingest.stack_ends import read_stack_ends
from aggregator.ingest.times import AHEAD_NS, OLDEST_NS, check_time, clock_offset_ms
from aggregator.profiles.codec import Section
from wire.hashes import batch_digest
from wire.schema import Batch, Event, Overhead
from wire.validate import check_batch

HASH_BYTES = 16
_OVERHEAD_INTEGERS = (
    *("sampler_cpu_ns", "shipper_cpu_ns", "kernel_cpu_ns", "interrupt_cpu_ns"),
    *("memory_bytes", "map_bytes", "shipper_memory_bytes"),
    *("interrupt_ns", "interrupt_spread_ns"),
    *("python_sampler_cpu_ns", "python_kernel_cpu_ns"),
)
_MAX_BIGINT = 2**62
_MAX_SEQUENCE = 2**32  # `node_prof.part` keeps it in 32 bits; at 10 s a batch that is 1,361 years
_MAX_WEIGHT_FACTOR = 100  # samples may stand for at most so many times the CPU time there was


@dataclass(frozen=True, eq=False)
class PreparedBatch:
    """A checked batch. Row i: `counts[i]` samples of stack `row_stack[i]`, series `row_series[i]`.

    `hashes` holds the distinct stack hashes, 16 bytes each, sorted as Postgres sorts uuids; the row
    columns are int64, `row_stack` indexes `hashes`, `row_series` indexes `series`. `stack_ends`
    and `python_ends` hold for each known reason the samples of each series. `dropped` counts by
    reason what was left out of the batch. `told_series` are the series, None for one that lacks
    some of its labels: to the node its number would stand for others.
    """

    node_id: int
    run: UUID
    sequence: int
    digest: bytes
    start_ns: int
    duration_ns: int
    rate_millihertz: int
    online_cpus: int
    agent_version: str
    facts: dict[str, str]
    overhead: Overhead
    series: tuple[SeriesKey, ...]
    hashes: bytes
    row_stack: NDArray[np.int64]
    row_series: NDArray[np.int64]
    counts: NDArray[np.int64]
    samples: int
    lost: int
    weight_ns: int
    clock_offset_ms: int | None = None
    stack_ends: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    python_ends: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    lost_by_reason: Mapping[str, int] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    told_series: tuple[SeriesKey | None, ...] = ()
    unnumbered: Unnumbered | None = None


def prepare_batch(
    batch: Batch,
    node_id: int,
    received_ns: int,
    sent_ns: int | None = None,
    digest: bytes | None = None,
    kept_ns: int = OLDEST_NS,
) -> PreparedBatch:
    """Check `batch` (values included) and bring its rows into int64 columns.

    `received_ns` is the centre's Unix time, `sent_ns` the node's when it sent, if known; `digest`
    that of the batch as it is on the node, where its rows came in another order; `kept_ns` how long
    profiles are kept. Raises wire errors for its form, BadValueError for its values, and for its
    time what `check_time` does.
    """
    digest = digest or batch_digest(batch)
    given = batch.series
    batch, dropped = clean_batch(batch)
    check_batch(batch)
    _check_values(batch)
    offset_ms = clock_offset_ms(batch.start_ns + batch.duration_ns, received_ns, sent_ns)
    check_time(batch.start_ns, received_ns, sent_ns, offset_ms, kept_ns)
    counts = np.frombuffer(batch.counts, "<u4").astype(np.int64)
    row_series = np.frombuffer(batch.series_index, "<u4").astype(np.int64)
    if len(counts) and int(counts.min()) < 1:
        raise BadValueError("a count is 0: stacks that were not seen must be left out")
    if len(row_series) and int(row_series.max()) >= len(batch.series):
        raise BadValueError(
            f"series_index {int(row_series.max())} is beyond the {len(batch.series)} series"
        )
    stack_ends, python_ends = read_stack_ends(batch, row_series, counts)
    dropped["stack_end"] += 0 if stack_ends else len(batch.stack_ends)
    dropped["stack_end"] += 0 if python_ends else len(batch.python_ends)
    used, row_series = np.unique(row_series, return_inverse=True)
    hashes, row_stack = _distinct(batch.stack_hashes)
    samples = int(counts.sum())
    events = timely_events(batch.events, received_ns, OLDEST_NS, AHEAD_NS)
    dropped["event_out_of_time"] = len(batch.events) - len(events)
    series = [series_key(batch.series[i].labels) for i in used.tolist()]
    as_given = [batch.series[i].labels == given[i].labels for i in used.tolist()]
    return PreparedBatch(
        node_id=node_id,
        run=UUID(bytes=batch.run),
        sequence=batch.sequence,
        digest=digest,
        start_ns=batch.start_ns,
        duration_ns=batch.duration_ns,
        rate_millihertz=batch.rate_millihertz,
        online_cpus=batch.online_cpus,
        agent_version=batch.agent_version,
        facts=batch.facts,
        overhead=batch.overhead,
        series=tuple(series),
        hashes=hashes,
        row_stack=row_stack,
        row_series=row_series.reshape(-1),
        counts=counts,
        samples=samples,
        lost=sum(batch.lost.values()),
        weight_ns=_weight_ns(batch, samples),
        clock_offset_ms=offset_ms,
        stack_ends={reason: column[used] for reason, column in stack_ends.items()},
        python_ends={reason: column[used] for reason, column in python_ends.items()},
        lost_by_reason=lost_by_reason(batch.lost),
        events=events,
        dropped=dropped,
        told_series=tuple(
            key if same else None for key, same in zip(series, as_given, strict=True)
        ),
    )


def make_sections(
    batch: PreparedBatch, stack_ids: NDArray[np.int64], series_ids: Sequence[int]
) -> list[Section]:
    """The batch as sections of `node_prof.data`; `stack_ids` is parallel to its `hashes`.

    Rows of one stack and series are added up, also when two sets of labels are the same.
    """
    if not len(batch.counts):
        return []
    ids = stack_ids[batch.row_stack]
    series = np.array(series_ids, np.int64)[batch.row_series]
    order = np.lexsort((ids, series))
    ids, series, counts = ids[order], series[order], batch.counts[order]
    changed = np.concatenate(([True], (ids[1:] != ids[:-1]) | (series[1:] != series[:-1])))
    first = np.flatnonzero(changed)
    ids, series, counts = ids[first], series[first], np.add.reduceat(counts, first)
    cuts = [0, *(np.flatnonzero(np.diff(series)) + 1).tolist(), len(series)]
    return [
        Section(int(series[a]), batch.rate_millihertz, ids[a:b], counts[a:b])
        for a, b in pairwise(cuts)
    ]


def split_hashes(hashes: bytes) -> list[bytes]:
    """The 16-byte hashes in a packed column."""
    return [hashes[i : i + HASH_BYTES] for i in range(0, len(hashes), HASH_BYTES)]


def _distinct(column: bytes) -> tuple[bytes, NDArray[np.int64]]:
    """The distinct hashes of `column` in order, and for each row which of them it is."""
    words = np.frombuffer(column, ">u8").reshape(-1, 2)
    high, low = words[:, 0].astype(np.uint64), words[:, 1].astype(np.uint64)
    order = np.lexsort((low, high))
    high, low = high[order], low[order]
    new = np.ones(len(order), bool)
    new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    row_stack = np.empty(len(order), np.int64)
    row_stack[order] = np.cumsum(new) - 1
    return words[order[new]].tobytes(), row_stack


def _weight_ns(batch: Batch, samples: int) -> int:
    """Nanoseconds of CPU that the samples stand for; refused if there cannot have been as much."""
    weight_ns = samples * 10**12 // batch.rate_millihertz
    # Absolute slack of a second a CPU: the last interval before a stop can be very short.
    there_was = batch.online_cpus * (batch.duration_ns + 10**9)
    if weight_ns > min(_MAX_WEIGHT_FACTOR * there_was, _MAX_BIGINT):
        raise BadValueError(
            f"{samples} samples at {batch.rate_millihertz} mHz are {weight_ns / 1e9:.0f} s of CPU, "
            f"on {batch.online_cpus} CPUs in {batch.duration_ns / 1e9:.1f} s"
        )
    return weight_ns


def _check_values(batch: Batch) -> None:
    if batch.sequence >= _MAX_SEQUENCE:
        raise BadValueError(f"sequence {batch.sequence} is beyond 2**32")
    if sum(batch.lost.values()) >= _MAX_BIGINT:
        raise BadValueError("the lost counts add up to 2**62 or more")
    version = batch.agent_version
    if len(version.encode()) > MAX_FACT_BYTES or "\0" in version:
        raise BadValueError(f"agent_version must have at most {MAX_FACT_BYTES} bytes without NUL")
    cost = batch.overhead
    for part in _OVERHEAD_INTEGERS:
        _check_number(part, getattr(cost, part))
    for part in ("cpu_percent", "user_percent_of_core", "event_latency_us"):
        _check_number(part, getattr(cost, part), most=1e9)


def _check_number(field: str, value: float, most: float = _MAX_BIGINT) -> None:
    if not math.isfinite(value) or not 0 <= value < most:
        raise BadValueError(f"overhead.{field} is {value}; it must be 0 or more, below {most:g}")
