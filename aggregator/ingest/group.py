"""Group commit: batches that arrive while a commit is under way share the next one.

One commit for many batches takes 13 times less CPU than one for each. A group that the database
refuses is stored again one by one, so that a bad batch harms no other.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, ParamSpec, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from aggregator.config import Quotas, Retention
from aggregator.db import connection_scope, driver_connection
from aggregator.errors import (
    AggregatorError,
    DatabaseUnavailableError,
    MissingPartitionError,
)
from aggregator.incarnation import Incarnation, RestoredError
from aggregator.ingest.ahead import AheadOfBatches
from aggregator.ingest.answers import count_new, distinct_hashes, tell
from aggregator.ingest.batches import PreparedBatch, make_sections, split_hashes
from aggregator.ingest.dictionary import Dictionary, KnownStack, ids_of
from aggregator.ingest.directives import Directives
from aggregator.ingest.errors import BusyError
from aggregator.ingest.fair_queue import FairQueue
from aggregator.ingest.quotas import NodeQuotas
from aggregator.ingest.refusals import Refusals
from aggregator.ingest.runs import Decision
from aggregator.ingest.store import TIER_10S, TIER_60S, EncodedBatch, store_group
from aggregator.on_demand.following import Taken, follow_profiles
from aggregator.profiles.codec import encode_sections
from aggregator.profiles.partitions import make_partitions, utc_now
from aggregator.profiles.stack_ends import encode_ends, make_ends
from aggregator.telemetry import TRACER, Metrics
from wire.schema import Answer, Directive

LOG = logging.getLogger(__name__)
MAX_GROUP = 64  # batches, one of a node
MAX_GROUP_ROWS = 200_000  # unless one batch alone has more
# A batch of more stacks that are not remembered here, or of more rows, takes a transaction long: it
# waits in a queue of its own, so that it holds up none of those that nodes send day by day.
SLOW_STACKS = 1_000
SLOW_ROWS = 20_000
SLOW_GROUP = 4
MAX_QUEUED = 512
MAX_QUEUED_OF_NODE = 4  # a shipper has one under way, and the one that it gave up waiting for
MAX_QUEUED_ROWS = 2_000_000  # in each queue; about 50 bytes each while they wait
ROWS_OFF_LOOP = 4_000  # larger groups are encoded in a thread

P = ParamSpec("P")
Result = TypeVar("Result")


@dataclass(eq=False)
class _Waiting:
    batch: PreparedBatch
    epoch: int  # of its node's id
    answer: "asyncio.Future[Answer]"


class _Stored(NamedTuple):
    """What became of each batch, and what nodes are to be told about profiles."""

    decisions: list[Decision]
    profiles: dict[int, list[Directive]]


class GroupCommit:
    """Takes checked batches, answers each after the commit that it is part of."""

    def __init__(
        self,
        database: AsyncEngine,
        metrics: Metrics,
        retention: Retention,
        quotas: Quotas,
        incarnation: Incarnation,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._retention = retention
        self._clock_ns = clock_ns
        self._incarnation = incarnation
        self.dictionary = Dictionary(database, incarnation)
        self.directives = Directives(database, metrics)
        self.ahead = AheadOfBatches()
        self.refusals = Refusals(database, metrics)
        for forget in (self.directives.clear, self.ahead.clear, self.refusals.clear):
            incarnation.on_end(forget)
        self.quotas = NodeQuotas(quotas)
        incarnation.on_end(self.quotas.clear)
        self._fast: FairQueue[_Waiting] = FairQueue()
        self._slow: FairQueue[_Waiting] = FairQueue()
        self._closed = False

    async def submit(self, batch: PreparedBatch, epoch: int) -> Answer:
        """Store `batch`, whose node was identified in `epoch` of the database; returns after the
        commit. Raises BusyError, ClonedNodeError or a database error; whoever cancels the wait may
        still find the batch stored."""
        waiting = _Waiting(batch, epoch, asyncio.get_running_loop().create_future())
        if self._closed:
            raise BusyError("the aggregator is shutting down")
        queue = self._slow if self._is_slow(batch) else self._fast
        rows = queue.rows + len(batch.counts)
        if len(queue) >= MAX_QUEUED or (queue.rows and rows > MAX_QUEUED_ROWS):
            raise BusyError(f"{len(queue)} batches wait for a commit already")
        if queue.count_of(batch.node_id) >= MAX_QUEUED_OF_NODE:
            raise BusyError(f"{MAX_QUEUED_OF_NODE} batches of this node wait already")
        queue.put(batch.node_id, len(batch.counts), waiting)
        self._tell_queued()
        return await waiting.answer

    async def run(self) -> None:
        """Commit groups until cancelled; a group that is cut short gets BusyError."""
        await asyncio.gather(self._serve(self._fast), self._serve(self._slow))

    async def _serve(self, queue: FairQueue[_Waiting]) -> None:
        while True:
            most = MAX_GROUP if queue is self._fast else SLOW_GROUP
            group = await queue.take(most, MAX_GROUP_ROWS)
            self._tell_queued()
            try:
                await self._commit(group)
            except asyncio.CancelledError:
                _fail(group, BusyError("the aggregator is shutting down"))
                raise

    def close(self) -> None:
        """Refuse new batches and those that wait; what is being committed is `run`'s affair."""
        self._closed = True
        for queue in (self._fast, self._slow):
            _fail(queue.drain(), BusyError("the aggregator is shutting down"))

    def _is_slow(self, batch: PreparedBatch) -> bool:
        if len(batch.counts) > SLOW_ROWS:
            return True
        return self.dictionary.count_unknown(split_hashes(batch.hashes)) > SLOW_STACKS

    def _tell_queued(self) -> None:
        self._metrics.queued.set(len(self._fast) + len(self._slow))

    async def _commit(self, group: list[_Waiting]) -> None:
        epoch = self._incarnation.epoch
        stale = [waiting for waiting in group if waiting.epoch != epoch]
        if stale:
            _fail(stale, RestoredError("the node was identified in a database of before"))
            group = [waiting for waiting in group if waiting.epoch == epoch]
        if not group:
            return
        try:
            answers = await self._store([waiting.batch for waiting in group], epoch)
        except DatabaseUnavailableError as error:
            _fail(group, error)
        except Exception as error:  # whatever it is, the loop must outlive it
            if len(group) == 1:
                LOG.exception("a batch of node %d cannot be stored", group[0].batch.node_id)
                _fail(group, error)
                return
            for waiting in group:
                await self._commit([waiting])
        else:
            for waiting, answer in zip(group, answers, strict=True):
                _settle(waiting, answer)

    async def _store(
        self, batches: list[PreparedBatch], epoch: int
    ) -> list[Answer | AggregatorError]:
        started = time.perf_counter()
        with TRACER.start_as_current_span("ingest.commit") as span:
            span.set_attribute("batches", len(batches))
            is_large = sum(len(batch.counts) for batch in batches) > ROWS_OFF_LOOP
            hashes = await _run(is_large, distinct_hashes, batches)
            stacks = await self.dictionary.stack_ids(hashes)
            series, new_series = await self.dictionary.series_ids(
                [k for b in batches for k in b.series]
            )
            # What is new in the dictionary stays there, also where a batch is not stored.
            new_stacks = await _run(is_large, count_new, batches, stacks)
            for batch, of_stacks in zip(batches, new_stacks, strict=True):
                of_series = (key.weight for key in batch.series if key.key_hash in new_series)
                self.quotas.take(batch.node_id, new_series=sum(of_series), new_stacks=of_stacks)
            encoded = await _run(is_large, self._encode, batches, stacks, series)
            decisions, profiles = await self._transact(encoded, epoch)
        self._metrics.commit_seconds.observe(time.perf_counter() - started)
        self._metrics.commit_batches.observe(len(batches))
        directives = await self.directives.wanted(batch.node_id for batch in batches)
        told = await _run(is_large, tell, batches, stacks, series)
        answers: list[Answer | AggregatorError] = []
        for one, decision, known in zip(encoded, decisions, told, strict=True):
            batch = one.batch
            self._count(one, decision)
            if decision.error is not None:
                answers.append(decision.error)
                continue
            # The first answer to a node carries its directives: it has one request in flight.
            asked = profiles.pop(batch.node_id, []) + directives.pop(batch.node_id, [])
            answers.append(Answer(decision.status, known.want, asked, *known.numbers))
        return answers

    def _encode(
        self,
        batches: list[PreparedBatch],
        stacks: dict[bytes, KnownStack],
        series: dict[bytes, int],
    ) -> list[EncodedBatch]:
        now_ns = self._clock_ns()
        oldest_ns = now_ns - self._retention.profiles_10s_s * 10**9
        oldest_overhead_ns = now_ns - self._retention.overhead_s * 10**9
        encoded = []
        for batch in batches:
            series_ids = [series[key.key_hash] for key in batch.series]
            data = encode_sections(make_sections(batch, ids_of(batch.hashes, stacks), series_ids))
            ends = make_ends(batch.stack_ends, batch.rate_millihertz, series_ids, batch.python_ends)
            tier_s = TIER_10S if batch.start_ns >= oldest_ns else TIER_60S
            has_overhead = batch.start_ns >= oldest_overhead_ns
            encoded.append(EncodedBatch(batch, data, encode_ends(ends), tier_s, has_overhead))
        return encoded

    async def _transact(self, encoded: Sequence[EncodedBatch], epoch: int) -> _Stored:
        try:
            return await self._store_once(encoded, epoch)
        except MissingPartitionError:
            LOG.info("a partition is missing; making it here, as the worker has not")
        async with connection_scope(self._database) as connection:
            await connection.run_sync(make_partitions, utc_now(), self._retention)
        return await self._store_once(encoded, epoch)

    async def _store_once(self, encoded: Sequence[EncodedBatch], epoch: int) -> _Stored:
        async with connection_scope(self._database) as connection:
            driver = await driver_connection(connection)
            await self._incarnation.check(driver, epoch)
            decisions = await store_group(driver, encoded)
            taken = [
                Taken(one.batch, decision.status == "stored")
                for one, decision in zip(encoded, decisions, strict=True)
                if decision.error is None
            ]
            return _Stored(decisions, await follow_profiles(connection, taken, utc_now()))

    def _count(self, encoded: EncodedBatch, decision: Decision) -> None:
        batch = encoded.batch
        self._metrics.batches.labels(decision.status).inc()
        if decision.status == "stored":
            self._metrics.samples.inc(batch.samples)
            self._metrics.lost_samples.inc(batch.lost)
            self._metrics.lost_batches.inc(decision.lost_batches)
            if not encoded.has_overhead:
                self.refusals.note(batch.node_id, "overhead_outlived")
            for reason, count in batch.dropped.items():
                self.refusals.note(batch.node_id, reason, count)
            for reason, column in batch.stack_ends.items():
                self._metrics.stack_ends.labels(reason).inc(int(column.sum()))
            for reason, column in batch.python_ends.items():
                self._metrics.python_ends.labels(reason).inc(int(column.sum()))


async def _run(is_large: bool, work: Callable[P, Result], *args: P.args, **kw: P.kwargs) -> Result:
    """What `work` makes, in a thread where that takes long."""
    return await asyncio.to_thread(work, *args, **kw) if is_large else work(*args, **kw)


def _settle(waiting: _Waiting, answer: Answer | AggregatorError) -> None:
    if waiting.answer.done():  # the client went away; the batch is stored all the same
        return
    if isinstance(answer, AggregatorError):
        waiting.answer.set_exception(answer)
    else:
        waiting.answer.set_result(answer)


def _fail(group: Sequence[_Waiting], error: Exception) -> None:
    for waiting in group:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)
