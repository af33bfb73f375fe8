"""CPU time over time, of the samples that a selector chooses."""

import math
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from aggregator.profiles.blob_columns import read_bodies, read_heads
from aggregator.profiles.loading import SeriesCache
from aggregator.profiles.questions import Question
from aggregator.profiles.reading import (
    StoredRow,
    choose_nodes,
    read_rows,
    row_parameters,
    union,
)
from aggregator.profiles.samples import weigh_sections
from aggregator.profiles.span import FINE_S, WIDE_S, Span, resolve_span
from aggregator.workers import Workers

_COLUMNS = "SELECT CAST(extract(epoch FROM p.bucket) AS bigint) AS at, p.weight_ns AS weight_ns"


@dataclass(frozen=True)
class Timeline:
    """`cpu_ns[i]` is the CPU time in [from_s + i x step_s, from_s + (i + 1) x step_s)."""

    from_s: int
    until_s: int
    step_s: int
    cpu_ns: list[int]


def resolve_steps(question: Question, points: int, keep_fine_s: int) -> tuple[Span, int]:
    """The span to read and the width of a step. Pure.

    Steps are aligned to their own width, so that they do not flicker as time goes on; so there are
    up to `points` + 1 of them. Steps under a minute need 10-second rows and are read from those.
    """
    length_s = question.until_s - question.from_s
    step = _step(length_s, points, FINE_S)
    fine_since_s = question.now_s - keep_fine_s + WIDE_S
    if step < WIDE_S and question.from_s - step >= fine_since_s:
        start, end = _align(question, step)
        return Span(start, end, (start, start), ((start, end),)), step
    step = _step(length_s, points, WIDE_S)
    start, end = _align(question, step)
    return resolve_span(start, end, question.now_s, keep_fine_s), step


async def read_timeline(
    connection: AsyncConnection,
    workers: Workers,
    question: Question,
    points: int,
    keep_fine_s: int,
) -> Timeline:
    """The timeline of a question in about `points` steps."""
    span, step = resolve_steps(question, points, keep_fine_s)
    selector = question.selector
    node_ids = sorted(await choose_nodes(connection, selector)) if selector.hosts else None
    sums: dict[int, int] = {}
    if not selector.labels:
        # Weights of whole rows are known without opening their blobs.
        statement = f"SELECT at, sum(weight_ns) FROM ({union(_COLUMNS, span)}) AS r GROUP BY at"
        for at, weight in await connection.execute(text(statement), row_parameters(span, node_ids)):
            sums[at] = int(weight)
    else:
        series = SeriesCache()
        async with aclosing(read_rows(connection, span, node_ids)) as bulks:
            async for rows in bulks:
                await _add_chosen(connection, workers, series, question, rows, sums)
    cpu_ns = [0] * ((span.until_s - span.from_s) // step)
    for at, weight in sums.items():
        cpu_ns[(at - span.from_s) // step] += weight
    return Timeline(span.from_s, span.until_s, step, cpu_ns)


async def _add_chosen(
    connection: AsyncConnection,
    workers: Workers,
    series: SeriesCache,
    question: Question,
    rows: list[StoredRow],
    sums: dict[int, int],
) -> None:
    by_series = await workers.run(_weights, rows)
    await series.load(connection, {series_id for _, series_id, _ in by_series})
    chosen = {
        series_id
        for series_id in {row[1] for row in by_series}
        if question.selector.matches_labels(series[series_id].labels)
    }
    for at, series_id, weight in by_series:
        if series_id in chosen:
            sums[at] = sums.get(at, 0) + weight


def _weights(rows: list[StoredRow]) -> list[tuple[int, int, int]]:
    """(bucket, series id, weight in ns) of every section."""
    heads = read_heads(row.data for row in rows)
    found = []
    for part in read_bodies(heads, np.arange(len(heads.series))):
        series = heads.series[part.sections].tolist()
        weights = weigh_sections(heads, part).tolist()
        blobs = heads.blob[part.sections].tolist()
        found += [
            (rows[blob].bucket_s, series_id, weight)
            for blob, series_id, weight in zip(blobs, series, weights, strict=True)
        ]
    return found


def _step(length_s: float, points: int, unit: int) -> int:
    return max(1, math.ceil(length_s / points / unit)) * unit


def _align(question: Question, step: int) -> tuple[int, int]:
    return math.floor(question.from_s / step) * step, math.ceil(question.until_s / step) * step
