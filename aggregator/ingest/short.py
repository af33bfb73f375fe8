"""A short batch (wire version 2) as the batch that it is short for.

Numbers are ids of this database. A node may only name what it knows: `check` in the message covers
the hashes that stand behind the numbers, so a number that was guessed, or one of another database
(a restored one, say), is refused and never counted as something else.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aggregator.ingest.batches import split_hashes
from aggregator.ingest.cleaning import clean_labels
from aggregator.ingest.dictionary import Dictionary
from aggregator.ingest.errors import BadValueError, UnknownNumberError
from aggregator.ingest.series import Unnumbered, series_key
from wire import limits
from wire.errors import MalformedError, TooLargeError
from wire.hashes import batch_check, labels_hash
from wire.schema import Batch, Series
from wire.short import CHECK_BYTES, HASH_BYTES, ShortBatch, widen_ends

OffLoop = Callable[[Callable[[], Any]], Awaitable[Any]]

_LOOKED_UP_AT_ONCE = 8_192
_PLANES = 4
_U32 = 2**32


class ShortRows(NamedTuple):
    """Rows of a short batch as int64 columns: those with a number, then those with a hash."""

    numbers: NDArray[np.int64]
    series: NDArray[np.int64]  # of both
    counts: NDArray[np.int64]  # of both


def read_rows(short: ShortBatch) -> ShortRows:
    """The rows of `short`. Raises wire errors for its form, BadValueError for numbers that do not
    ascend within a series."""
    if len(short.digest) != HASH_BYTES or len(short.check) != CHECK_BYTES:
        raise MalformedError(f"digest must have {HASH_BYTES} bytes and check {CHECK_BYTES}")
    if len(short.series) > limits.MAX_SERIES:
        raise TooLargeError(f"{len(short.series)} series; at most {limits.MAX_SERIES} are allowed")
    numbered_counts = _planes("numbered_counts", short.numbered_counts)
    hashed_counts = _planes("hashed_counts", short.hashed_counts)
    steps = _planes("numbers", short.numbers)
    if len(steps) != len(numbered_counts):
        raise MalformedError(f"numbered_counts must have {len(steps)} rows like numbers")
    if len(short.hashes) != HASH_BYTES * len(hashed_counts):
        raise MalformedError(f"hashes must have {HASH_BYTES} bytes for each of hashed_counts")
    if len(steps) + len(hashed_counts) > limits.MAX_BATCH_ROWS:
        raise TooLargeError(f"more than {limits.MAX_BATCH_ROWS} rows in a batch")
    of_numbered = _series_of_rows("numbered_rows", short.numbered_rows, short, len(steps))
    of_hashed = _series_of_rows("hashed_rows", short.hashed_rows, short, len(hashed_counts))
    numbers = np.cumsum(steps) % _U32
    falls = (np.diff(numbers) < 0) & (np.diff(of_numbered) == 0)
    if falls.any() or (len(numbers) and int(numbers.min()) < 1):
        raise BadValueError("the numbers of stacks must be 1 or more and ascend in each series")
    return ShortRows(
        numbers,
        np.concatenate((of_numbered, of_hashed)),
        np.concatenate((numbered_counts, hashed_counts)),
    )


async def widen(
    short: ShortBatch, rows: ShortRows, dictionary: Dictionary, off_loop: OffLoop
) -> Batch:
    """The batch that `short` stands for; its rows are in another order than on the node.

    Raises UnknownNumberError when a number says nothing here, or not what the node means.
    """
    distinct = (await off_loop(partial(np.unique, rows.numbers))).tolist()
    hashes: list[bytes] = []
    for start in range(0, len(distinct), _LOOKED_UP_AT_ONCE):
        hashes += await dictionary.stack_hashes(distinct[start : start + _LOOKED_UP_AT_ONCE])
        await asyncio.sleep(0)  # others have their turn
    labels = await dictionary.series_labels([one for one in short.series if isinstance(one, int)])
    widened: Batch = await off_loop(partial(_widen, short, rows, distinct, hashes, labels))
    return widened


def _widen(
    short: ShortBatch,
    rows: ShortRows,
    distinct: list[int],
    hashes: list[bytes],
    labels: dict[int, dict[str, str]],
) -> Batch:
    series = [Series(labels[one] if isinstance(one, int) else one) for one in short.series]
    table = np.frombuffer(b"".join(hashes), f"V{HASH_BYTES}")
    numbered = table[np.searchsorted(distinct, rows.numbers)].tobytes() if len(table) else b""
    hashed_labels = (labels_hash(one.labels) for one in series)
    if batch_check(short.digest, hashed_labels, (numbered,)) != short.check:
        raise UnknownNumberError("the numbers of the batch stand for other stacks or labels here")
    samples = np.zeros(len(series), np.int64)
    np.add.at(samples, rows.series, rows.counts)
    whole = samples.tolist()
    return Batch(
        node=short.node,
        run=short.run,
        sequence=short.sequence,
        start_ns=short.start_ns,
        duration_ns=short.duration_ns,
        rate_millihertz=short.rate_millihertz,
        collector=short.collector,
        online_cpus=short.online_cpus,
        series=series,
        stack_hashes=numbered + short.hashes,
        series_index=rows.series.astype("<u4").tobytes(),
        counts=rows.counts.astype("<u4").tobytes(),
        lost=short.lost,
        overhead=short.overhead,
        agent_version=short.agent_version,
        facts=short.facts,
        stack_ends=widen_ends("stack_ends", short.stack_ends, whole),
        events=list(short.events),
        python_ends=widen_ends("python_ends", short.python_ends, whole),
    )


def unnumbered(short: ShortBatch, rows: ShortRows) -> Unnumbered:
    """What of `short` has no number yet."""
    used = np.unique(rows.series).tolist()
    labels = [one for one in map(short.series.__getitem__, used) if isinstance(one, dict)]
    hashes = sorted(set(split_hashes(short.hashes)))
    told = (series_key(one) if clean_labels(one) is one else None for one in labels)
    return Unnumbered(b"".join(hashes), tuple(told))


def _series_of_rows(field: str, column: bytes, short: ShortBatch, rows: int) -> NDArray[np.int64]:
    lengths = _planes(field, column)
    if len(lengths) != len(short.series):
        raise MalformedError(f"{field} must have {len(short.series)} values, one a series")
    if int(lengths.sum()) != rows:
        raise MalformedError(f"{field} add up to {int(lengths.sum())} rows, there are {rows}")
    return np.repeat(np.arange(len(lengths)), lengths)


def _planes(field: str, column: bytes) -> NDArray[np.int64]:
    if len(column) % _PLANES:
        raise MalformedError(f"{field} has {len(column)} bytes, not a multiple of {_PLANES}")
    planes = np.frombuffer(column, np.uint8).reshape(_PLANES, -1)
    return np.ascontiguousarray(planes.T).view("<u4").reshape(-1).astype(np.int64)
