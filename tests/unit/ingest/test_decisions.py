"""What happens to a batch by the sequence and digest of its run."""

from dataclasses import dataclass
from datetime import datetime, timezone
from uuid import UUID

import pytest

from aggregator.ingest import digests
from aggregator.ingest.errors import ClonedNodeError
from aggregator.ingest.runs import RunState, decide
from aggregator.ingest.store import bucket_start

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


def _run_of(*sequences):
    state = RunState(id=1, high_water=0, digest=b"")
    for sequence in sequences:
        assert decide(state, Numbered(sequence, b"%d of it" % sequence)).status == "stored"
    return state


def test_a_clone_that_lags_behind_is_another_batch():
    state = _run_of(*range(1, 101))
    for behind in range(digests.KEPT):
        sequence = 100 - behind
        assert decide(state, Numbered(sequence, b"%d of it" % sequence)).status == "duplicate"
        refused = decide(state, Numbered(sequence, b"its clone's"))
        assert (refused.status, str(sequence) in str(refused.error)) == ("refused", True)
    # From before that nothing is known.
    assert decide(state, Numbered(100 - digests.KEPT, b"its clone's")).status == "duplicate"
    assert len(state.digests) == digests.KEPT * digests.SHORT_BYTES
    assert (state.high_water, state.digest, state.lost) == (100, b"100 of it", 0)


def test_batches_that_never_came_have_no_digest():
    state = _run_of(1, 2, 5, 6)
    assert decide(state, Numbered(4, b"late")).status == "duplicate"
    assert decide(state, Numbered(3, b"late")).status == "duplicate"
    assert decide(state, Numbered(2, b"clone")).status == "refused"
    assert decide(state, Numbered(1, b"1 of it")).status == "duplicate"
    state = _run_of(1, 1000)
    assert decide(state, Numbered(999, b"late")).status == "duplicate"
    assert decide(state, Numbered(1, b"clone")).status == "duplicate"


def test_digests_that_another_release_left_behind_say_nothing():
    state = _run_of(1, 2, 3)
    state.high_water, state.digest = 4, b"stored by a release that keeps no digests"
    assert decide(state, Numbered(3, b"clone")).status == "duplicate"
    decide(state, Numbered(5, b"5 of it"))
    assert decide(state, Numbered(4, b"clone")).status == "duplicate"
    decide(state, Numbered(6, b"6 of it"))
    assert decide(state, Numbered(5, b"clone")).status == "refused"


def test_a_digest_of_zeros_is_still_one():
    state = RunState(id=1, high_water=0, digest=b"")
    for sequence in (1, 2):
        decide(state, Numbered(sequence, bytes(16)))
    assert decide(state, Numbered(1, bytes(16))).status == "duplicate"
    assert decide(state, Numbered(1, b"clone")).status == "refused"


@pytest.mark.parametrize(
    ("tier_s", "second", "bucket"),
    [(10, 0.0, 0), (10, 9.999, 0), (10, 10.0, 10), (60, 59.9, 0), (60, 60.0, 60)],
)
def test_buckets(tier_s, second, bucket):
    minute = datetime(2026, 11, 22, 17, 30, tzinfo=timezone.utc).timestamp()

    start = bucket_start(int((minute + second) * 10**9), tier_s)

    assert start.timestamp() == minute + bucket
