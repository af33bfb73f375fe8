"""CPU time over time, of the samples that a selector chooses."""

import math
from collections import defaultdict
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

_COLUMNS = (
    "SELECT p.node_id AS node_id, p.weight_ns AS weight_ns, p.covered_ms AS covered_ms, "
    "CAST(extract(epoch FROM p.bucket) AS bigint) AS at"
)
_BY_STEP = """
SELECT step, CAST(sum(weight_ns) AS bigint), sum(weight_ns / (1e6 * covered_ms))
FROM (
    SELECT node_id, (at - :from_s) / :step_s AS step, sum(weight_ns) AS weight_ns,
        sum(covered_ms) AS covered_ms
    FROM ({rows}) AS r GROUP BY 1, 2
) AS hosts WHERE covered_ms > 0 GROUP BY step
"""


@dataclass(frozen=True)
class Timeline:
    """`cpu_ns[i]` is the CPU time in [from_s + i x step_s, from_s + (i + 1) x step_s), `cores[i]`
    the sum of what each host used while it was covered in it. Both are None where no host was: not
    known is not idle."""

    from_s: int
    until_s: int
    step_s: int
    cpu_ns: list[int | None]
    cores: list[float | None]


@dataclass
class _Host:
    """What is known of one host in one step."""

    weight_ns: int = 0
    covered_ms: int = 0


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
    steps = (span.until_s - span.from_s) // step
    cpu_ns: list[int | None] = [None] * steps
    cores: list[float | None] = [None] * steps
    if not selector.labels:
        # Weights of whole rows are known without opening their blobs.
        statement = _BY_STEP.format(rows=union(_COLUMNS, span))
        parameters = {**row_parameters(span, node_ids), "from_s": span.from_s, "step_s": step}
        for at, weight, used in await connection.execute(text(statement), parameters):
            cpu_ns[at], cores[at] = weight, float(used)
        return Timeline(span.from_s, span.until_s, step, cpu_ns, cores)
    series = SeriesCache()
    hosts: defaultdict[tuple[int, int], _Host] = defaultdict(_Host)
    async with aclosing(read_rows(connection, span, node_ids)) as bulks:
        async for rows in bulks:
            weights = await _chosen_weights(connection, workers, series, question, rows)
            for row, weight in zip(rows, weights, strict=True):
                host = hosts[(row.bucket_s - span.from_s) // step, row.node_id]
                host.weight_ns += weight
                host.covered_ms += row.covered_ms
    for (at, _), host in hosts.items():
        if host.covered_ms:
            cpu_ns[at] = (cpu_ns[at] or 0) + host.weight_ns
            cores[at] = (cores[at] or 0.0) + host.weight_ns / (1e6 * host.covered_ms)
    return Timeline(span.from_s, span.until_s, step, cpu_ns, cores)


async def _chosen_weights(
    connection: AsyncConnection,
    workers: Workers,
    series: SeriesCache,
    question: Question,
    rows: list[StoredRow],
) -> list[int]:
    """The CPU time of the chosen series in each row."""
    by_series = await workers.run(_weights, rows)
    found = {series_id for _, series_id, _ in by_series}
    await series.load(connection, found)
    chosen = {one for one in found if question.selector.matches_labels(series[one].labels)}
    sums = [0] * len(rows)
    for row, series_id, weight in by_series:
        if series_id in chosen:
            sums[row] += weight
    return sums


def _weights(rows: list[StoredRow]) -> list[tuple[int, int, int]]:
    """(index of the row, series id, weight in ns) of every section."""
    heads = read_heads(row.data for row in rows)
    found: list[tuple[int, int, int]] = []
    for part in read_bodies(heads, np.arange(len(heads.series))):
        series = heads.series[part.sections].tolist()
        weights = weigh_sections(heads, part).tolist()
        blobs = heads.blob[part.sections].tolist()
        found += zip(blobs, series, weights, strict=True)
    return found


def _step(length_s: float, points: int, unit: int) -> int:
    return max(1, math.ceil(length_s / points / unit)) * unit


def _align(question: Question, step: int) -> tuple[int, int]:
    return math.floor(question.from_s / step) * step, math.ceil(question.until_s / step) * step
