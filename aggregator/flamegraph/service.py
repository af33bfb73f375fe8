"""Answering: read what was sampled, sum it, put it on the tree, name the frames.

Everything that counts (unpacking, sorting, summing) runs in one thread of its own, so that the
event loop stays free and the dictionary needs no lock.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from aggregator.db import connection_scope
from aggregator.flamegraph.graph import Folded, Graph, arrange, fold, prune
from aggregator.profiles.codec import Section
from aggregator.profiles.dictionary import Dictionary
from aggregator.profiles.grouping import Ints, group
from aggregator.profiles.loading import SeriesCache, load_frames, load_stacks
from aggregator.profiles.prefix_tree import UNDEFINED, Level
from aggregator.profiles.reading import StoredRow, choose_nodes, read_rows
from aggregator.profiles.samples import SampleSums, Totals, decode_rows, entries_by_service
from aggregator.profiles.selector import Selector
from aggregator.profiles.span import Span, resolve_span

Result = TypeVar("Result")
HOST_NAMES = 50


@dataclass(frozen=True)
class Question:
    """What to show: Unix times [from_s, until_s), as asked at now_s, of the selector's samples."""

    from_s: float
    until_s: float
    now_s: float
    selector: Selector


@dataclass(frozen=True)
class Coverage:
    """How much an answer rests on; `docs/formats.md` explains each field."""

    hosts: int
    host_names: list[str]
    host_seconds: float
    samples: int
    lost_samples: int
    effective_rate_hz: float
    unsymbolized_share: float
    undefined_stacks: int
    damaged_blobs: int


@dataclass(frozen=True, eq=False)
class Stacks:
    """What a question found: `weights[i]` ns and `counts[i]` samples of stack `stack_ids[i]`.

    `service_index` indexes `services`; a (service, stack) may come once for each sampling rate.
    """

    span: Span
    services: list[str]
    service_index: Ints
    stack_ids: Ints
    counts: Ints
    weights: Ints
    totals: Totals
    host_names: list[str]


@dataclass(frozen=True, eq=False)
class Flamegraph:
    """An answer: the graph, the effective times and the coverage."""

    graph: Graph
    span: Span
    coverage: Coverage


class FlamegraphService:
    """Holds the resident dictionary and the thread that works on it."""

    def __init__(self, engine: AsyncEngine, keep_fine_s: int) -> None:
        self._engine = engine
        self._keep_fine_s = keep_fine_s
        self._dictionary = Dictionary()
        self._series = SeriesCache()
        self._thread = ThreadPoolExecutor(1, "flamegraph")

    def close(self) -> None:
        """Stop the thread; what it works on is finished first."""
        self._thread.shutdown()

    async def flamegraph(self, question: Question, max_nodes: int) -> Flamegraph:
        """The flamegraph of a question, with at most `max_nodes` nodes."""
        async with connection_scope(self._engine) as connection:
            stacks = await self._collect(connection, question)
            dictionary = await self._define(connection, stacks.stack_ids)
            levels, undefined = await self._run(_place, dictionary, stacks)
            await self._name(connection, dictionary, levels)
        folded = await self._run(fold, levels, stacks.services, dictionary)
        graph = await self._run(_draw, folded, max_nodes, dictionary)
        coverage = _coverage(stacks, folded.unnamed_share, undefined)
        return Flamegraph(graph, stacks.span, coverage)

    async def stacks(self, question: Question) -> tuple[Stacks, Dictionary, Ints]:
        """What a question found, unfolded: with the dictionary and the tree's leaf of each row."""
        async with connection_scope(self._engine) as connection:
            stacks = await self._collect(connection, question)
            dictionary = await self._define(connection, stacks.stack_ids)
            levels, _ = await self._run(_place, dictionary, stacks)
            await self._name(connection, dictionary, levels)
        leaves = await self._run(dictionary.leaves, stacks.stack_ids)
        return stacks, dictionary, leaves

    async def run(self, work: Callable[..., Result], *arguments: object) -> Result:
        """Run `work` in the thread: what reads the dictionary or takes long belongs there."""
        return await self._run(work, *arguments)

    async def _run(self, work: Callable[..., Result], *arguments: object) -> Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, partial(work, *arguments))

    async def _collect(self, connection: AsyncConnection, question: Question) -> Stacks:
        selector = question.selector
        span = resolve_span(question.from_s, question.until_s, question.now_s, self._keep_fine_s)
        nodes = await choose_nodes(connection, selector)
        only = self._chooser(selector) if selector.labels else None
        sums = SampleSums(only)
        node_ids = sorted(nodes) if selector.hosts else None
        async for rows in read_rows(connection, span, node_ids):
            decoded = await self._run(decode_rows, rows)
            await self._series.load(
                connection,
                {section.series_id for _, sections in decoded for section in sections or ()},
            )
            await self._run(_add_all, sums, decoded)
        sections, totals = await self._run(sums.finish)
        services, service_index, stack_ids, weights = await self._run(
            entries_by_service, sections, lambda series_id: self._series[series_id].service
        )
        counts = np.concatenate([np.zeros(0, np.int64), *(section.counts for section in sections)])
        names = sorted(nodes.get(node_id, str(node_id)) for node_id in totals.node_ids)
        return Stacks(span, services, service_index, stack_ids, counts, weights, totals, names)

    def _chooser(self, selector: Selector) -> Callable[[int], bool]:
        chosen: dict[int, bool] = {}

        def choose(series_id: int) -> bool:
            if series_id not in chosen:
                chosen[series_id] = selector.matches_labels(self._series[series_id].labels)
            return chosen[series_id]

        return choose

    async def _define(self, connection: AsyncConnection, stack_ids: Ints) -> Dictionary:
        """Read the stacks that the dictionary lacks; returns the dictionary to go on with."""
        if self._dictionary.is_full():
            self._dictionary = Dictionary()  # who still works on the old one keeps it
        dictionary = self._dictionary
        distinct = await self._run(np.unique, stack_ids)
        missing = await self._run(dictionary.missing_stacks, distinct, time.monotonic())
        if missing:
            rows = await load_stacks(connection, missing)
            # Others may have added the same stacks meanwhile; the tree leaves those as they are.
            await self._run(dictionary.add_stacks, missing, rows, time.monotonic())
        return dictionary

    async def _name(
        self, connection: AsyncConnection, dictionary: Dictionary, levels: list[Level]
    ) -> None:
        """Read the frames on `levels` that are new, unresolved or old."""
        stale = await self._run(_stale_frames, dictionary, levels, time.monotonic())
        if stale:
            rows = await load_frames(connection, stale)
            await self._run(dictionary.frames.update, rows, time.monotonic())


def _add_all(sums: SampleSums, decoded: list[tuple[StoredRow, list[Section] | None]]) -> None:
    for row, sections in decoded:
        sums.add(row, sections)


def _place(dictionary: Dictionary, stacks: Stacks) -> tuple[list[Level], int]:
    """The weighted levels of the tree, and how many distinct stacks are not defined."""
    leaves = dictionary.leaves(stacks.stack_ids)
    levels = dictionary.tree.totals(stacks.service_index, leaves, stacks.weights)
    undefined = len(np.unique(stacks.stack_ids[leaves == UNDEFINED]))
    return levels, undefined


def _stale_frames(dictionary: Dictionary, levels: list[Level], now_s: float) -> list[int]:
    nodes = [dictionary.tree.frames_of(level.nodes) for level in levels]
    numbers = group(np.concatenate([np.zeros(0, np.int64), *nodes])).keys
    return dictionary.frames.stale_ids(numbers, now_s)


def _draw(folded: Folded, max_nodes: int, dictionary: Dictionary) -> Graph:
    return arrange(prune(folded, max_nodes), dictionary.frames.functions)


def _coverage(stacks: Stacks, unnamed_share: float, undefined: int) -> Coverage:
    totals = stacks.totals
    return Coverage(
        hosts=len(totals.node_ids),
        host_names=stacks.host_names[:HOST_NAMES],
        host_seconds=totals.covered_ms / 1000,
        samples=totals.samples,
        lost_samples=totals.lost,
        effective_rate_hz=round(totals.effective_rate_hz, 3),
        unsymbolized_share=round(unnamed_share, 6),
        undefined_stacks=undefined,
        damaged_blobs=totals.damaged_blobs,
    )
