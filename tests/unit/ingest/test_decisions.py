"""What happens to a batch by the sequence and digest of its run."""

from dataclasses import dataclass
from datetime import datetime, timezone
from uuid import UUID

import pytest

from aggregator.ingest.errors import ClonedNodeError
from aggregator.ingest.store import RunState, bucket_start, decide

RUN = UUID(int=1)


@dataclass
class Numbered:
    """The fields of a batch that a decision looks at."""

    sequence: int
    digest: bytes
    run: UUID = RUN


@pytest.mark.parametrize(
    ("sequence", "digest", "status", "lost", "high_water"),
    [
        (6, b"new", "stored", 0, 6),
        (8, b"new", "stored", 2, 8),
        (5, b"last", "duplicate", 0, 5),
        (4, b"last", "duplicate", 0, 5),
        (1, b"other", "duplicate", 0, 5),
        (5, b"other", "refused", 0, 5),
    ],
)
def test_decisions(sequence, digest, status, lost, high_water):
    state = RunState(id=1, high_water=5, digest=b"last")

    decision = decide(state, Numbered(sequence, digest))

    assert (decision.status, decision.lost_batches) == (status, lost)
    assert (state.high_water, state.lost) == (high_water, lost)
    assert isinstance(decision.error, ClonedNodeError) == (status == "refused")


def test_first_batch_of_a_run():
    state = RunState(id=1, high_water=0, digest=b"")

    assert decide(state, Numbered(1, b"a")).lost_batches == 0
    assert (state.high_water, state.digest) == (1, b"a")


def test_gaps_add_up():
    state = RunState(id=1, high_water=0, digest=b"", lost=0)
    for sequence in (3, 4, 9):
        decide(state, Numbered(sequence, b"a"))

    assert state.lost == 2 + 4


@pytest.mark.parametrize(
    ("tier_s", "second", "bucket"),
    [(10, 0.0, 0), (10, 9.999, 0), (10, 10.0, 10), (60, 59.9, 0), (60, 60.0, 60)],
)
def test_buckets(tier_s, second, bucket):
    minute = datetime(2026, 11, 22, 17, 30, tzinfo=timezone.utc).timestamp()

    start = bucket_start(int((minute + second) * 10**9), tier_s)

    assert start.timestamp() == minute + bucket
