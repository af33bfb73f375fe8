"""What the answers to batches tell besides their decision. Pure."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from aggregator.ingest.batches import PreparedBatch, split_hashes
from aggregator.ingest.dictionary import KnownStack, ids_of, pack_numbers
from wire.codec import DEFINITIONS_VERSION

MAX_WANTED = 65_536  # more are asked for by the next batches: a definitions message is limited too


class Told(NamedTuple):
    """What the answer to a batch tells: wanted hashes, and packed numbers of stacks and of labels
    with the version of definitions (`wire.schema.Answer`)."""

    want: bytes
    numbers: tuple[bytes, bytes, int]


def tell(
    batches: Sequence[PreparedBatch],
    stacks: Mapping[bytes, KnownStack],
    series: Mapping[bytes, int],
) -> list[Told]:
    told = []
    for batch in batches:
        known = [(h, stacks[h]) for h in split_hashes(batch.hashes)]
        want = [h for h, stack in known if stack.is_wanted_of(batch.node_id)]
        told.append(Told(b"".join(want[:MAX_WANTED]), _numbers(batch, stacks, series)))
    return told


def _numbers(
    batch: PreparedBatch, stacks: Mapping[bytes, KnownStack], series: Mapping[bytes, int]
) -> tuple[bytes, bytes, int]:
    asked = batch.unnumbered
    if asked is None:
        return b"", b"", 0
    return (
        pack_numbers(ids_of(asked.hashes, stacks)),
        pack_numbers(
            np.array([series[key.key_hash] if key else 0 for key in asked.series], np.int64)
        ),
        DEFINITIONS_VERSION,
    )


def distinct_hashes(batches: Sequence[PreparedBatch]) -> set[bytes]:
    return {h for batch in batches for h in split_hashes(batch.hashes)}


def count_new(batches: Sequence[PreparedBatch], stacks: Mapping[bytes, KnownStack]) -> list[int]:
    """For each batch how many of its stacks nobody had sent before."""
    new = {stack_hash for stack_hash, stack in stacks.items() if stack.is_new}
    if not new:
        return [0] * len(batches)
    return [len(new.intersection(split_hashes(batch.hashes))) for batch in batches]
