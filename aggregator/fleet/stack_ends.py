"""How stacks ended, by service: whose stacks are whole, and why others are not."""

from contextlib import aclosing
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from aggregator.profiles.blob_columns import read_heads
from aggregator.profiles.loading import SeriesCache
from aggregator.profiles.questions import Question
from aggregator.profiles.reading import choose_nodes, read_ends
from aggregator.profiles.span import Span, resolve_span
from aggregator.profiles.stack_ends import EndSums, StackEnds
from aggregator.workers import Workers


@dataclass(frozen=True)
class ServiceEnds:
    """The effective times, the ends of all chosen services and of each, most samples first."""

    span: Span
    all: StackEnds
    services: list[tuple[str, StackEnds]]
    damaged_blobs: int


async def read_service_ends(
    connection: AsyncConnection, workers: Workers, question: Question, keep_fine_s: int
) -> ServiceEnds:
    """The ends of the samples that a question chooses. No stack is read for it."""
    span = resolve_span(question.from_s, question.until_s, question.now_s, keep_fine_s)
    selector = question.selector
    node_ids = sorted(await choose_nodes(connection, selector)) if selector.hosts else None
    sums, damaged = EndSums(), 0
    async with aclosing(read_ends(connection, span, node_ids)) as bulks:
        async for blobs in bulks:
            damaged += await workers.run(_add, sums, blobs)
    series = SeriesCache()
    await series.load(connection, sums.series_ids())

    def service_of(series_id: int) -> str | None:
        known = series[series_id]
        return known.service if selector.matches_labels(known.labels) else None

    by_service = sums.by(service_of)
    ordered = sorted(by_service.items(), key=lambda item: (-item[1].total, item[0]))
    everything = sums.of(lambda series_id: service_of(series_id) is not None)
    return ServiceEnds(span, everything, ordered, damaged)


def _add(sums: EndSums, blobs: list[bytes]) -> int:
    """Add blobs; how many of them were damaged."""
    heads = read_heads(blobs)
    sums.add(heads)
    return int(heads.damaged.sum())
