"""Which stored rows answer a question, and reading them."""

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from aggregator.db import database_errors, driver_connection
from aggregator.profiles.selector import Selector
from aggregator.profiles.span import Span
from aggregator.profiles.times import to_datetime

ROWS_AT_FIRST = 32
MOST_ROWS_AT_ONCE = 2_000
BYTES_AT_ONCE = 2 << 20  # of blobs, as they are stored

# One statement, hence one snapshot: a compaction that commits meanwhile neither hides rows nor
# shows them twice. A minute that waits for compaction is read from its 10-second rows. Rows of the
# 1-minute tier with a part other than 0 came too late for the 10-second tier; they always count.
_FROM_WIDE = """
FROM node_prof p
WHERE p.tier_s = 60 AND p.bucket >= :first AND p.bucket < :last
  AND (:all_nodes OR p.node_id = ANY(:node_ids))
  AND (p.part <> 0 OR NOT EXISTS (
    SELECT FROM dirty_bucket d
    WHERE d.tier_s = 60 AND d.bucket = p.bucket AND d.node_id = p.node_id))
"""
_FROM_FINE = """
FROM node_prof p
WHERE p.tier_s = 10 AND p.bucket >= :fine_first AND p.bucket < :last
  AND (:all_nodes OR p.node_id = ANY(:node_ids))
  AND (EXISTS (
    SELECT FROM dirty_bucket d
    WHERE d.tier_s = 60 AND d.bucket = date_bin('1 minute', p.bucket, 'epoch')
      AND d.node_id = p.node_id)
  OR NOT EXISTS (
    SELECT FROM node_prof c
    WHERE c.tier_s = 60 AND c.bucket = date_bin('1 minute', p.bucket, 'epoch')
      AND c.bucket >= :fine_first AND c.bucket < :last
      AND c.node_id = p.node_id AND c.part = 0))
"""
_FROM_ENDS = """
FROM node_prof p
WHERE p.tier_s = 10 AND (:all_nodes OR p.node_id = ANY(:node_ids))
  AND (p.bucket >= :head AND p.bucket < :head_end OR p.bucket >= :tail AND p.bucket < :tail_end)
"""


_PARAMETER = re.compile(r"(?<!:):(\w+)")


class StoredRow(NamedTuple):
    """One blob with what is known of it without opening it."""

    node_id: int
    bucket_s: int  # Unix time of the start of its bucket
    samples: int
    lost: int
    covered_ms: int
    data: bytes
    stack_ends: bytes = b""


async def choose_nodes(connection: AsyncConnection, selector: Selector) -> dict[int, str]:
    """Id and name of the nodes that the selector's conditions on `host` choose."""
    rows = await connection.execute(text("SELECT id, name FROM nodes"))
    return {node_id: name for node_id, name in rows if selector.matches_host(name)}


async def read_rows(
    connection: AsyncConnection, span: Span, node_ids: Sequence[int] | None
) -> AsyncGenerator[list[StoredRow], None]:
    """The rows that answer for `span`, in bulks of about BYTES_AT_ONCE; `node_ids` None means every
    node.

    Close it (`contextlib.aclosing`), or an error on the way leaves its cursor open.
    """
    columns = (
        "SELECT p.node_id, CAST(extract(epoch FROM p.bucket) AS bigint), p.samples, p.lost, "
        "p.covered_ms, p.data, p.stack_ends"
    )
    async with aclosing(_stream(connection, columns, span, node_ids)) as bulks:
        async for bulk in bulks:
            yield [StoredRow._make(row) for row in bulk]


async def read_ends(
    connection: AsyncConnection, span: Span, node_ids: Sequence[int] | None
) -> AsyncGenerator[list[bytes], None]:
    """As `read_rows`, but only the blobs of how stacks ended, where there are any."""
    async with aclosing(_stream(connection, "SELECT p.stack_ends", span, node_ids)) as bulks:
        async for bulk in bulks:
            yield [row[0] for row in bulk if row[0]]


async def _stream(
    connection: AsyncConnection, columns: str, span: Span, node_ids: Sequence[int] | None
) -> AsyncGenerator[list[tuple[Any, ...]], None]:
    # The driver's own cursor: its binary rows cost a third of those that SQLAlchemy makes of text.
    statement = _PARAMETER.sub(r"%(\1)s", union(columns, span))
    driver = await driver_connection(connection)
    with database_errors():
        async with driver.cursor("rows", binary=True) as cursor:
            await cursor.execute(statement, row_parameters(span, node_ids))
            size = ROWS_AT_FIRST
            while rows := await cursor.fetchmany(size):
                yield rows
                read = sum(len(value) for row in rows for value in row if type(value) is bytes)
                mean = max(1, read // len(rows))
                size = min(MOST_ROWS_AT_ONCE, 4 * size, max(1, BYTES_AT_ONCE // mean))


def union(columns: str, span: Span) -> str:
    """The statement that selects `columns` of the rows (`p`) that answer for `span`."""
    parts = []
    if span.minutes[0] < span.minutes[1]:
        parts += [columns + _FROM_WIDE, columns + _FROM_FINE]
    if span.ends or not parts:
        parts.append(columns + _FROM_ENDS)
    return " UNION ALL ".join(parts)


def row_parameters(span: Span, node_ids: Sequence[int] | None) -> dict[str, Any]:
    """The parameters of `union`'s statement."""
    first, last = span.minutes
    (head, head_end), (tail, tail_end) = (*span.ends, (0, 0), (0, 0))[:2]
    moments = {
        "first": first,
        "fine_first": max(first, span.oldest_fine_s),
        "last": last,
        "head": head,
        "head_end": head_end,
        "tail": tail,
        "tail_end": tail_end,
    }
    return {
        **{name: to_datetime(seconds) for name, seconds in moments.items()},
        "all_nodes": node_ids is None,
        "node_ids": list(node_ids or ()),
    }
