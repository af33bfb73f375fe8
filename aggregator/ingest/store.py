"""One transaction for a group of batches: the run rows that make it exactly once, and the data.

A run row is locked before it is compared and updated with the data in the same transaction, so a
batch is stored by exactly one of any number of aggregators and retries. Rows are always locked in
the order of their ids: runs, dirty buckets, nodes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg
from sqlalchemy.ext.asyncio import AsyncEngine

from aggregator.db import connection_scope, driver_connection
from aggregator.ingest.batches import PreparedBatch
from aggregator.ingest.event_rows import add_events
from aggregator.ingest.runs import (
    MAX_LOST,
    Decision,
    RunKey,
    RunState,
    columns,
    decide,
    lock_runs,
    run_key,
    update_runs,
)

TIER_10S = 10
TIER_60S = 60
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_COPY_PROFILES = """
    COPY node_prof (tier_s, bucket, node_id, part, samples, lost, covered_ms, weight_ns, data,
        stack_ends)
    FROM STDIN (FORMAT BINARY)
"""
_PROFILE_TYPES = (
    "int4", "timestamptz", "int4", "int8", "int8", "int8", "int8", "int8", "bytea", "bytea",
)  # fmt: skip
# DO UPDATE and not DO NOTHING: it locks a row that is there, so compaction either sees this batch
# or skips the bucket until the commit.
_MARK_DIRTY = """
    INSERT INTO dirty_bucket (tier_s, bucket, node_id)
    SELECT %s, bucket, node_id FROM unnest(%s::timestamptz[], %s::int[]) AS new (bucket, node_id)
    ORDER BY bucket, node_id
    ON CONFLICT (tier_s, bucket, node_id) DO UPDATE SET tier_s = excluded.tier_s
"""
_ADD_OVERHEAD = """
    INSERT INTO node_overhead (node_id, at, cpu_percent, user_percent_of_core, memory_bytes,
        map_bytes, duration_s, detail)
    SELECT node_id, at, cpu, user_cpu, memory, maps, duration_s, detail::jsonb
    FROM unnest(%s::int[], %s::timestamptz[], %s::real[], %s::real[], %s::bigint[], %s::bigint[],
        %s::float8[], %s::text[]) AS new (node_id, at, cpu, user_cpu, memory, maps, duration_s,
        detail)
    ON CONFLICT (node_id, at) DO NOTHING
"""
_LOCK_NODES = "SELECT id FROM nodes WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE"
_UPDATE_NODES = """
    UPDATE nodes SET last_seen_at = now(), agent_version = new.agent_version,
        facts = new.facts::jsonb, rate_millihertz = new.rate, online_cpus = new.cpus,
        clock_offset_ms = coalesce(new.clock_offset_ms, nodes.clock_offset_ms),
        clock_read_at = CASE WHEN new.clock_offset_ms IS NULL THEN nodes.clock_read_at
            ELSE now() END,
        lost_batches = least(nodes.lost_batches + new.lost_batches, 4611686018427387904),
        lost_samples = least(nodes.lost_samples + new.lost_samples, 4611686018427387904)
    FROM unnest(%s::int[], %s::text[], %s::text[], %s::int[], %s::int[], %s::bigint[],
        %s::bigint[], %s::bigint[]) AS new (id, agent_version, facts, rate, cpus, clock_offset_ms,
        lost_batches, lost_samples)
    WHERE nodes.id = new.id
"""
_NOTE_CLONES = "UPDATE nodes SET clone_refused_at = now() WHERE id = ANY(%s)"
_NOTE_CLOCK = "UPDATE nodes SET clock_offset_ms = %s, clock_read_at = now() WHERE id = %s"


@dataclass(frozen=True, eq=False)
class EncodedBatch:
    """A batch whose stacks and series have ids: `data` is its blob, `stack_ends` that of its
    ends."""

    batch: PreparedBatch
    data: bytes
    stack_ends: bytes
    tier_s: int  # 10, or 60 for a batch older than the 10 s tier reaches
    has_overhead: bool = True  # not where it is from before what is kept of that

    @property
    def bucket(self) -> datetime:
        return bucket_start(self.batch.start_ns, self.tier_s)


@dataclass
class _NodeUpdate:
    batch: PreparedBatch
    lost_batches: int = 0
    lost_samples: int = 0
    clock_offset_ms: int | None = field(default=None)


def bucket_start(start_ns: int, tier_s: int) -> datetime:
    """Start of the bucket of a tier in which `start_ns` (Unix) lies."""
    return _EPOCH + timedelta(seconds=start_ns // (tier_s * 10**9) * tier_s)


async def store_group(
    driver: psycopg.AsyncConnection[Any], group: Sequence[EncodedBatch]
) -> list[Decision]:
    """Store the new ones of `group` in the caller's transaction; one decision for each, in order.

    Batches of one run are decided in the order of their sequence, whatever their order here.
    """
    states = await lock_runs(driver, [encoded.batch for encoded in group])
    decisions: dict[int, Decision] = {}
    for i in sorted(range(len(group)), key=lambda i: group[i].batch.sequence):
        decisions[i] = decide(states[run_key(group[i].batch)], group[i].batch)
    stored = [e for i, e in enumerate(group) if decisions[i].status == "stored"]
    if stored:
        await update_runs(driver, list(states.values()))
        await _copy_profiles(driver, stored, states)
        await _mark_dirty(driver, stored)
        await _add_overhead(driver, stored)
        await add_events(driver, [(e.batch.node_id, x) for e in stored for x in e.batch.events])
    await _update_nodes(driver, group, decisions)
    return [decisions[i] for i in range(len(group))]


async def note_clock_offset(database: AsyncEngine, node_id: int, offset_ms: int) -> None:
    """Record the clock of a node whose batch is refused: it may never have one that is stored."""
    async with connection_scope(database) as connection:
        driver = await driver_connection(connection)
        await driver.execute(_NOTE_CLOCK, (offset_ms, node_id))


async def _copy_profiles(
    driver: psycopg.AsyncConnection[Any],
    stored: list[EncodedBatch],
    states: dict[RunKey, RunState],
) -> None:
    async with driver.cursor() as cursor, cursor.copy(_COPY_PROFILES) as copy:
        copy.set_types(_PROFILE_TYPES)
        for encoded in stored:
            batch = encoded.batch
            await copy.write_row(
                (
                    encoded.tier_s,
                    encoded.bucket,
                    batch.node_id,
                    states[run_key(batch)].id << 32 | batch.sequence,
                    batch.samples,
                    batch.lost,
                    batch.duration_ns // 10**6,
                    batch.weight_ns,
                    encoded.data,
                    encoded.stack_ends,
                )
            )


async def _mark_dirty(driver: psycopg.AsyncConnection[Any], stored: list[EncodedBatch]) -> None:
    buckets = {
        (bucket_start(encoded.batch.start_ns, TIER_60S), encoded.batch.node_id)
        for encoded in stored
        if encoded.tier_s == TIER_10S
    }
    if buckets:
        await driver.execute(_MARK_DIRTY, (TIER_60S, *columns(sorted(buckets))))


async def _add_overhead(driver: psycopg.AsyncConnection[Any], stored: list[EncodedBatch]) -> None:
    rows = []
    for batch in (encoded.batch for encoded in stored if encoded.has_overhead):
        cost = batch.overhead
        detail = {
            "sampler_cpu_ns": cost.sampler_cpu_ns,
            "shipper_cpu_ns": cost.shipper_cpu_ns,
            "kernel_cpu_ns": cost.kernel_cpu_ns,
            "interrupt_cpu_ns": cost.interrupt_cpu_ns,
            "event_latency_us": round(cost.event_latency_us, 2),
            "interrupt_ns": cost.interrupt_ns,
            "interrupt_spread_ns": cost.interrupt_spread_ns,
            "shipper_memory_bytes": cost.shipper_memory_bytes,
            "python_sampler_cpu_ns": cost.python_sampler_cpu_ns,
            "python_kernel_cpu_ns": cost.python_kernel_cpu_ns,
            "lost": batch.lost_by_reason,
        }
        at = _EPOCH + timedelta(microseconds=batch.start_ns // 1000)
        rows.append(
            (
                batch.node_id,
                at,
                cost.cpu_percent,
                cost.user_percent_of_core,
                cost.memory_bytes,
                cost.map_bytes,
                batch.duration_ns / 1e9,
                json.dumps(detail),
            )
        )
    if rows:
        await driver.execute(_ADD_OVERHEAD, columns(rows))


async def _update_nodes(
    driver: psycopg.AsyncConnection[Any],
    group: Sequence[EncodedBatch],
    decisions: dict[int, Decision],
) -> None:
    updates: dict[int, _NodeUpdate] = {}
    cloned = {group[i].batch.node_id for i, d in decisions.items() if d.error is not None}
    for i, encoded in enumerate(group):
        batch, decision = encoded.batch, decisions[i]
        if decision.error is not None:
            continue
        update = updates.setdefault(batch.node_id, _NodeUpdate(batch))
        if batch.start_ns > update.batch.start_ns:
            update.batch = batch
        if batch.clock_offset_ms is not None:
            update.clock_offset_ms = batch.clock_offset_ms
        if decision.status == "stored":
            update.lost_batches = min(update.lost_batches + decision.lost_batches, MAX_LOST)
            update.lost_samples = min(update.lost_samples + batch.lost, MAX_LOST)
    await driver.execute(_LOCK_NODES, (sorted(updates.keys() | cloned),))
    if cloned:
        await driver.execute(_NOTE_CLONES, (sorted(cloned),))
    if not updates:
        return
    rows = [
        (
            node_id,
            update.batch.agent_version,
            json.dumps(update.batch.facts),
            update.batch.rate_millihertz,
            update.batch.online_cpus,
            update.clock_offset_ms,
            update.lost_batches,
            update.lost_samples,
        )
        for node_id, update in updates.items()
    ]
    await driver.execute(_UPDATE_NODES, columns(rows))
