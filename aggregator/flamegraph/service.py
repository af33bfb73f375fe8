"""Answering: read what was sampled, sum it, put it on the tree, name the frames.

Everything that counts (unpacking, sorting, summing) runs in one thread of its own, so that the
event loop stays free and the dictionary needs no lock.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from aggregator.db import connection_scope, driver_connection
from aggregator.flamegraph.arrange import Graph, arrange
from aggregator.flamegraph.graph import Folded, fold
from aggregator.flamegraph.prune import prune, rank_zoomed
from aggregator.flamegraph.summary import Summary, summarize
from aggregator.incarnation import Incarnation
from aggregator.profiles.dictionary import MAX_TREE_NODES, Dictionary
from aggregator.profiles.errors import TooMuchError
from aggregator.profiles.grouping import Ints, group
from aggregator.profiles.loading import SeriesCache, last_renaming, load_frames, load_stacks
from aggregator.profiles.prefix_tree import REFUSED, UNDEFINED, Level
from aggregator.profiles.questions import Question
from aggregator.profiles.reading import choose_nodes, read_rows
from aggregator.profiles.samples import SampleSums, Stacks, list_stacks, open_rows
from aggregator.profiles.selector import Selector
from aggregator.profiles.span import Span, resolve_span
from aggregator.workers import Workers

Result = TypeVar("Result")
_CPUS = text("SELECT id, online_cpus FROM nodes")
HOST_NAMES = 50
MOST_STACKS = 500_000  # of one question
STACKS_AT_ONCE = 5_000  # read and added; 1 KB each while that is done
_ROWS_OF_NODES = 10  # of the functions a table lists by self and by total: max_nodes by this


@dataclass(frozen=True)
class Coverage:
    """How much an answer rests on. Shares are 0 to 1; the unsymbolized one is of frames, by time.

    `cores` is the sum of what each host used while it was covered; `cpus` are all that these hosts
    have, None where one has not told.
    `effective_rate_hz` is the sampling rate less what was lost; `undefined_stacks` counts distinct
    stacks whose frames no node has told yet, `refused_stacks` those whose frames had something
    wrong; samples of damaged blobs count as lost. `stack_ends` are the samples with a user part by
    how that ended, where agents say so, and `complete_share` is the share of the complete ones
    among them (None: none); `python_ends` and `python_complete_share` are the same of Python
    programs and the Python part of their stacks.
    """

    hosts: int
    host_names: list[str]
    host_seconds: float
    cores: float
    cpus: int | None
    samples: int
    lost_samples: int
    effective_rate_hz: float
    unsymbolized_share: float
    undefined_stacks: int
    refused_stacks: int
    damaged_blobs: int
    stack_ends: dict[str, int]
    complete_share: float | None
    python_ends: dict[str, int]
    python_complete_share: float | None


@dataclass(frozen=True, eq=False)
class Flamegraph:
    """An answer: the graph, its functions, the effective times and the coverage."""

    graph: Graph
    summary: Summary
    span: Span
    coverage: Coverage


@dataclass(frozen=True, eq=False)
class Placed:
    """The weighted levels of the tree, and how many distinct stacks have no frames (yet)."""

    levels: list[Level]
    undefined_stacks: int
    refused_stacks: int


class FlamegraphService:
    """Holds the resident dictionary and the thread that works on it; `workers` read blobs."""

    def __init__(
        self, engine: AsyncEngine, incarnation: Incarnation, workers: Workers, keep_fine_s: int
    ) -> None:
        self._engine = engine
        self._incarnation = incarnation
        incarnation.on_end(self._forget)
        self._workers = workers
        self._keep_fine_s = keep_fine_s
        self._dictionary = Dictionary()
        self._series = SeriesCache()
        self._thread = Workers("flamegraphs", 1)

    async def close(self) -> None:
        """Stop the thread; what it works on is finished first."""
        await self._thread.close()

    async def flamegraph(
        self, question: Question, max_nodes: int, zoom: int | None = None
    ) -> Flamegraph:
        """The flamegraph of a question, with at most `max_nodes` nodes, those below the path `zoom`
        first."""
        stacks, dictionary, placed = await self._answer(question)
        folded = await self.run(fold, placed.levels, stacks.services, dictionary)
        graph, summary = await self.run(_draw, folded, max_nodes, zoom, dictionary)
        coverage = _coverage(stacks, folded.unnamed_share, placed)
        return Flamegraph(graph, summary, stacks.span, coverage)

    async def stacks(self, question: Question) -> tuple[Stacks, Dictionary]:
        """What a question found, unfolded, with the dictionary that knows all of it."""
        stacks, dictionary, _ = await self._answer(question)
        return stacks, dictionary

    async def _answer(self, question: Question) -> tuple[Stacks, Dictionary, Placed]:
        async with connection_scope(self._engine) as connection:
            await self._incarnation.look(await driver_connection(connection))
            if self._series.is_full():
                self._series = SeriesCache()
            if self._dictionary.is_full():
                self._dictionary = Dictionary()  # who still works on the old one keeps it
            dictionary = self._dictionary
            stacks = await self._collect(connection, question, self._series)
            await self._define(connection, dictionary, stacks.stack_ids)
            placed = await self.run(_place, dictionary, stacks)
            await self._name(connection, dictionary, placed.levels)
        return stacks, dictionary, placed

    async def run(self, work: Callable[..., Result], *arguments: object) -> Result:
        """Run `work` in the thread: what reads the dictionary or takes long belongs there."""
        return await self._thread.run(work, *arguments)

    def _forget(self) -> None:
        """Begin without what is remembered by id."""
        self._dictionary, self._series = Dictionary(), SeriesCache()

    async def _collect(
        self, connection: AsyncConnection, question: Question, series: SeriesCache
    ) -> Stacks:
        selector = question.selector
        span = resolve_span(question.from_s, question.until_s, question.now_s, self._keep_fine_s)
        nodes = await choose_nodes(connection, selector)
        cpus = {row.id: row.online_cpus for row in await connection.execute(_CPUS)}
        only = _chooser(selector, series) if selector.labels else None
        sums = SampleSums(only)
        node_ids = sorted(nodes) if selector.hosts else None
        adding: asyncio.Future[None] | None = None
        try:
            async with aclosing(read_rows(connection, span, node_ids)) as bulks:
                async for rows in bulks:
                    opened = await self._workers.run(open_rows, rows)
                    await series.load(connection, opened.series_ids())
                    if adding is not None:
                        await adding
                    # While one bulk is added, the next is read.
                    adding = asyncio.ensure_future(self._workers.run(sums.add, opened))
            if adding is not None:
                await adding
        finally:
            if adding is not None:
                adding.cancel()
        return await self._workers.run(
            list_stacks,
            sums,
            span,
            lambda series_id: series[series_id].service,
            lambda node_id: nodes.get(node_id, f"node {node_id}"),
            cpus.get,
        )

    async def _define(
        self, connection: AsyncConnection, dictionary: Dictionary, stack_ids: Ints
    ) -> None:
        """Read the stacks that the dictionary lacks."""
        distinct = await self.run(np.unique, stack_ids)
        if len(distinct) > MOST_STACKS:
            raise TooMuchError(
                f"{len(distinct)} distinct stacks answer this; at most {MOST_STACKS} can be drawn"
            )
        missing = await self.run(dictionary.missing_stacks, distinct, time.monotonic())
        before = len(dictionary.tree)
        for start in range(0, len(missing), STACKS_AT_ONCE):
            asked = missing[start : start + STACKS_AT_ONCE]
            rows = await load_stacks(connection, asked)
            # Others may have added the same stacks meanwhile; the tree leaves those as they are.
            await self.run(dictionary.add_stacks, asked, rows, time.monotonic())
            if len(dictionary.tree) - before > MAX_TREE_NODES:
                raise TooMuchError(f"the stacks that answer this have over {MAX_TREE_NODES} frames")

    async def _name(
        self, connection: AsyncConnection, dictionary: Dictionary, levels: list[Level]
    ) -> None:
        """Read the frames on `levels` that are new, unresolved or old, all after an upload."""
        renamed_at = await last_renaming(connection)
        if renamed_at != dictionary.renamed_at:
            dictionary.renamed_at = renamed_at
            await self.run(dictionary.frames.expire)
        stale = await self.run(_stale_frames, dictionary, levels, time.monotonic())
        if stale:
            rows = await load_frames(connection, stale)
            await self.run(dictionary.frames.update, rows, time.monotonic())


def _chooser(selector: Selector, series: SeriesCache) -> Callable[[int], bool]:
    """Whether a series is chosen, decided once for each."""
    chosen: dict[int, bool] = {}

    def choose(series_id: int) -> bool:
        if series_id not in chosen:
            chosen[series_id] = selector.matches_labels(series[series_id].labels)
        return chosen[series_id]

    return choose


def _place(dictionary: Dictionary, stacks: Stacks) -> Placed:
    leaves = dictionary.leaves(stacks.stack_ids)
    # The samples of a row weigh the same, so that its square is weight² / count.
    squares = stacks.weights.astype(np.float64) ** 2 / np.maximum(stacks.counts, 1)
    levels = dictionary.tree.totals(stacks.service_index, leaves, stacks.weights, squares)
    absent = (np.unique(stacks.stack_ids[leaves == node]) for node in (UNDEFINED, REFUSED))
    return Placed(levels, *map(len, absent))


def _stale_frames(dictionary: Dictionary, levels: list[Level], now_s: float) -> list[int]:
    nodes = [dictionary.tree.frames_of(level.nodes) for level in levels]
    numbers = group(np.concatenate([np.zeros(0, np.int64), *nodes])).keys
    return dictionary.frames.stale_ids(numbers, now_s)


def _draw(
    folded: Folded, max_nodes: int, zoom: int | None, dictionary: Dictionary
) -> tuple[Graph, Summary]:
    functions = dictionary.frames.functions
    summary = summarize(folded, functions, max(1, max_nodes // _ROWS_OF_NODES))
    is_cut = len(folded.code) > max_nodes
    first = rank_zoomed(folded, zoom, functions) if zoom and is_cut else None
    pruned = prune(folded, max_nodes, first)
    return arrange(pruned, dictionary.frames, summary.listed, summary.groups), summary


def _coverage(stacks: Stacks, unnamed_share: float, placed: Placed) -> Coverage:
    totals = stacks.totals
    return Coverage(
        hosts=len(totals.node_ids),
        host_names=stacks.host_names[:HOST_NAMES],
        host_seconds=totals.covered_ms / 1000,
        cores=round(stacks.cores, 6),
        cpus=stacks.cpus,
        samples=totals.samples,
        lost_samples=totals.lost,
        effective_rate_hz=round(totals.effective_rate_hz, 3),
        unsymbolized_share=round(unnamed_share, 6),
        undefined_stacks=placed.undefined_stacks,
        refused_stacks=placed.refused_stacks,
        damaged_blobs=totals.damaged_blobs,
        stack_ends=dict(totals.stack_ends.samples),
        complete_share=totals.stack_ends.complete_share,
        python_ends=dict(totals.stack_ends.python),
        python_complete_share=totals.stack_ends.python_complete_share,
    )
