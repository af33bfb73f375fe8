"""Version 2 of a batch: what the aggregator has a number for is named by that number.

The spool keeps batches of version 1. What is sent of one is a `ShortBatch` as soon as the
aggregator has told numbers of stacks and sets of labels (`Answer.stack_numbers`). Its `digest` is
that of the batch in version 1, so that both forms are the same batch to the aggregator; `check`
covers what the numbers stand for, so that no number can be taken for another stack or label.

Columns are split by byte ("planes"): first the lowest byte of every value, then the next, four in
all. Small values then are runs of zeros to zstd, and neither side loops over bits.
"""

from array import array
from collections.abc import Iterable
from itertools import chain

import msgspec

from wire.errors import MalformedError
from wire.hashes import batch_check, labels_hash
from wire.schema import Batch, Event, Overhead

HASH_BYTES = 16
CHECK_BYTES = 8
_TYPES = {4: "I", 8: "Q"}  # of array.array
_COMPLETE = "complete"


class ShortOverhead(Overhead, frozen=True, array_like=True):
    """`Overhead` without the names of its fields."""


class ShortEvent(Event, frozen=True, array_like=True):
    """`Event` without the names of its fields."""


class ShortBatch(msgspec.Struct, frozen=True, array_like=True):
    """A `Batch`; fields of the same name mean the same.

    Its rows come series by series in the order of `series`: first those with a number, in order of
    the number, then those with a hash. `numbers` are differences modulo 2**32, each to the number
    before it, from 0 on. `stack_ends` and `python_ends` are planes; "complete" is what it lacks to
    the samples of its series, which is hardly ever anything.
    """

    node: str
    run: bytes
    sequence: int
    start_ns: int
    duration_ns: int
    rate_millihertz: int
    collector: str
    online_cpus: int
    agent_version: str
    facts: dict[str, str]
    lost: dict[str, int]
    overhead: ShortOverhead
    events: list[ShortEvent]
    digest: bytes  # 16 bytes: wire.hashes.batch_digest of the batch in version 1
    check: bytes  # 8 bytes: wire.hashes.batch_check
    series: list[int | dict[str, str]]  # number, or labels
    numbered_rows: bytes  # planes: rows with a number, of each series
    hashed_rows: bytes  # planes: rows with a hash, of each series
    numbers: bytes  # planes
    hashes: bytes  # 16 bytes each
    numbered_counts: bytes  # planes
    hashed_counts: bytes  # planes
    stack_ends: dict[str, bytes]  # planes, a value a series
    python_ends: dict[str, bytes]


class Numbers(msgspec.Struct, frozen=True):
    """What is known of a batch's stacks and labels: number by hash; and by `labels_hash`."""

    stacks: dict[bytes, int]
    labels: dict[bytes, int]


def to_planes(values: Iterable[int], width: int = 4) -> bytes:
    """`values` (u32, or u64 for a `width` of 8) split by byte."""
    packed = array(_TYPES[width], values).tobytes()
    return b"".join(packed[plane::width] for plane in range(width))


def from_planes(field: str, column: bytes, width: int = 4) -> "array[int]":
    """The values in a column of planes. Raises MalformedError."""
    rows, rest = divmod(len(column), width)
    if rest:
        raise MalformedError(f"{field} has {len(column)} bytes, not a multiple of {width}")
    packed = bytearray(len(column))
    for plane in range(width):
        packed[plane::width] = column[plane * rows : (plane + 1) * rows]
    return array(_TYPES[width], bytes(packed))


def shorten(batch: Batch, digest: bytes, numbers: Numbers) -> ShortBatch:
    """`batch`, whose columns fit together, with the numbers that are known. Pure."""
    numbered: list[list[tuple[int, bytes, int]]] = [[] for _ in batch.series]
    hashed: list[list[tuple[bytes, int]]] = [[] for _ in batch.series]
    hashes = batch.stack_hashes
    at = 0
    for row, count in zip(array("I", batch.series_index), array("I", batch.counts), strict=True):
        stack_hash = hashes[at : at + HASH_BYTES]
        at += HASH_BYTES
        number = numbers.stacks.get(stack_hash)
        if number is None:
            hashed[row].append((stack_hash, count))
        else:
            numbered[row].append((number, stack_hash, count))
    for rows in numbered:
        rows.sort()
    flat = list(chain.from_iterable(numbered))
    rest = list(chain.from_iterable(hashed))
    labels = [labels_hash(series.labels) for series in batch.series]
    samples = [
        sum(row[2] for row in ours) + sum(row[1] for row in others)
        for ours, others in zip(numbered, hashed, strict=True)
    ]
    steps, last = [], 0
    for number, _, _ in flat:
        steps.append((number - last) & 0xFFFFFFFF)
        last = number
    return ShortBatch(
        node=batch.node,
        run=batch.run,
        sequence=batch.sequence,
        start_ns=batch.start_ns,
        duration_ns=batch.duration_ns,
        rate_millihertz=batch.rate_millihertz,
        collector=batch.collector,
        online_cpus=batch.online_cpus,
        agent_version=batch.agent_version,
        facts=batch.facts,
        lost=batch.lost,
        overhead=ShortOverhead(*msgspec.structs.astuple(batch.overhead)),
        events=[ShortEvent(*msgspec.structs.astuple(event)) for event in batch.events],
        digest=digest,
        check=batch_check(digest, labels, (stack_hash for _, stack_hash, _ in flat)),
        series=[
            numbers.labels.get(one, series.labels)
            for one, series in zip(labels, batch.series, strict=True)
        ],
        numbered_rows=to_planes(map(len, numbered)),
        hashed_rows=to_planes(map(len, hashed)),
        numbers=to_planes(steps),
        hashes=b"".join(stack_hash for stack_hash, _ in rest),
        numbered_counts=to_planes(count for _, _, count in flat),
        hashed_counts=to_planes(count for _, count in rest),
        stack_ends=_short_ends(batch.stack_ends, samples),
        python_ends=_short_ends(batch.python_ends, samples),
    )


def _short_ends(ends: dict[str, bytes], samples: list[int]) -> dict[str, bytes]:
    return {
        reason: to_planes(complement(array("I", column), samples))
        if reason == _COMPLETE
        else to_planes(array("I", column))
        for reason, column in ends.items()
    }


def complement(column: Iterable[int], samples: Iterable[int]) -> list[int]:
    """What each value lacks to `samples`, modulo 2**32; of its result, the values again."""
    return [(whole - value) & 0xFFFFFFFF for value, whole in zip(column, samples, strict=True)]


def widen_ends(field: str, ends: dict[str, bytes], samples: list[int]) -> dict[str, bytes]:
    """Columns of `Batch.stack_ends` again, of the `samples` of each series. Raises
    MalformedError."""
    wide = {}
    for reason, column in ends.items():
        values = from_planes(f"{field}.{reason[:40]}", column)
        if len(values) != len(samples):
            raise MalformedError(f"{field}.{reason[:40]} must have {len(samples)} rows")
        whole = complement(values, samples) if reason == _COMPLETE else values
        wide[reason] = array("I", whole).tobytes()
    return wide
