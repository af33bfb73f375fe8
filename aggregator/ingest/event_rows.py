"""Rows of events, stored with the batches that brought them."""

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg

from aggregator.ingest.runs import columns
from wire.schema import Event

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_ADD_EVENTS = """
    INSERT INTO agent_events (node_id, at, kind, reason, words, value, "limit", "before", "after")
    SELECT * FROM unnest(%s::int[], %s::timestamptz[], %s::text[], %s::text[], %s::text[],
        %s::float8[], %s::float8[], %s::text[], %s::text[])
"""


async def add_events(
    driver: psycopg.AsyncConnection[Any], events: Sequence[tuple[int, Event]]
) -> None:
    """Store events, each with the id of its node, in the caller's transaction."""
    rows = [
        (
            node_id,
            _EPOCH + timedelta(microseconds=event.at_ns // 1000),
            event.kind,
            event.reason,
            event.words,
            event.value,
            event.limit,
            event.before,
            event.after,
        )
        for node_id, event in events
    ]
    if rows:
        await driver.execute(_ADD_EVENTS, columns(rows))
