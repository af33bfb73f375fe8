"""The row of a run, which makes its batches count exactly once.

It is locked before a batch is compared with it, and updated in the transaction that stores the
batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg

from aggregator.ingest import digests
from aggregator.ingest.batches import PreparedBatch
from aggregator.ingest.errors import ClonedNodeError

MAX_LOST = 2**62
_LOCK_RUNS = """
    SELECT runs.id, runs.node_id, runs.run, high_water, digest, digests FROM runs
    JOIN unnest(%s::int[], %s::uuid[]) AS seen (node_id, run)
        ON runs.node_id = seen.node_id AND runs.run = seen.run
    ORDER BY runs.id FOR UPDATE OF runs
"""
_ADD_RUNS = """
    INSERT INTO runs (node_id, run)
    SELECT node_id, run FROM unnest(%s::int[], %s::uuid[]) AS seen (node_id, run)
    ORDER BY node_id, run ON CONFLICT DO NOTHING
"""
_UPDATE_RUNS = """
    UPDATE runs SET high_water = new.high_water, digest = new.digest, digests = new.digests,
        last_batch_at = now(),
        lost_batches = least(runs.lost_batches + new.lost, 4611686018427387904)
    FROM unnest(%s::int[], %s::bigint[], %s::bytea[], %s::bytea[], %s::bigint[])
        AS new (id, high_water, digest, digests, lost)
    WHERE runs.id = new.id
"""
RunKey = tuple[int, UUID]


@dataclass
class RunState:
    """A run row while a group is decided on."""

    id: int
    high_water: int
    digest: bytes
    digests: bytes = b""  # `aggregator.ingest.digests`
    lost: int = 0


@dataclass(frozen=True)
class Decision:
    """What happens to one batch: "stored" or "duplicate", or the error that refuses it."""

    status: str
    lost_batches: int = 0
    error: ClonedNodeError | None = None


def decide(state: RunState, batch: PreparedBatch) -> Decision:
    """Compare a batch with its run and, if it is new, count it there. Pure.

    A batch from before those whose digests are kept can only be taken for a duplicate.
    """
    behind = state.high_water - batch.sequence
    if behind >= 0:
        if not _is_another(state, behind, batch.digest):
            return Decision("duplicate")
        error = ClonedNodeError(
            f"batch {batch.sequence} of run {batch.run.hex} was stored with other content"
        )
        return Decision("refused", error=error)
    gap = -behind - 1
    if digests.recall(state.digests, 0, state.digest) is None:
        state.digests = b""
    state.digests = digests.remember(state.digests, gap, batch.digest)
    state.high_water, state.digest = batch.sequence, batch.digest
    state.lost = min(state.lost + gap, MAX_LOST)
    return Decision("stored", lost_batches=gap)


def _is_another(state: RunState, behind: int, digest: bytes) -> bool:
    if behind == 0:
        return digest != state.digest
    short = digests.recall(state.digests, behind, state.digest)
    return short is not None and digests.differs(short, digest)


def run_key(batch: PreparedBatch) -> RunKey:
    """Which run a batch is of."""
    return batch.node_id, batch.run


async def lock_runs(
    driver: psycopg.AsyncConnection[Any], batches: Sequence[PreparedBatch]
) -> dict[RunKey, RunState]:
    """The rows of the runs of `batches`, made where they are missing, locked in order of id."""
    keys = sorted({run_key(batch) for batch in batches})
    states = await _lock_known_runs(driver, keys)
    missing = [key for key in keys if key not in states]
    if missing:
        await driver.execute(_ADD_RUNS, columns(missing))
        states.update(await _lock_known_runs(driver, missing))
    return states


async def _lock_known_runs(
    driver: psycopg.AsyncConnection[Any], keys: list[RunKey]
) -> dict[RunKey, RunState]:
    rows = await (await driver.execute(_LOCK_RUNS, columns(keys))).fetchall()
    return {
        (node_id, run): RunState(run_id, high_water, bytes(digest), bytes(known))
        for run_id, node_id, run, high_water, digest, known in rows
    }


def columns(rows: Sequence[tuple[Any, ...]]) -> tuple[list[Any], ...]:
    """`rows` (one at least) turned into columns, as `unnest` takes them."""
    return tuple(list(column) for column in zip(*rows, strict=True))


async def update_runs(driver: psycopg.AsyncConnection[Any], states: list[RunState]) -> None:
    """Write what was decided."""
    rows = [(s.id, s.high_water, s.digest, s.digests, s.lost) for s in states]
    await driver.execute(_UPDATE_RUNS, columns(rows))
