"""What agents did and met: read page by page, and dropped when it is old or too much."""

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from aggregator.access.errors import UnknownNodeError
from aggregator.profiles.errors import QueryError
from aggregator.profiles.times import format_time, to_datetime

MAX_NODE_EVENTS = 10_000  # the oldest beyond these are dropped
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)
_MAX_ID = 2**63 - 1
_NODE = text("SELECT id FROM nodes WHERE name = :name")
_EVENTS = text(
    """
SELECT id, at, kind, reason, words, value, "limit", "before", "after" FROM agent_events
WHERE node_id = :node_id AND at >= :since AND at < :until AND (at, id) < (:last_at, :last_id)
    AND (CAST(:kind AS text) IS NULL OR kind = :kind)
ORDER BY at DESC, id DESC LIMIT :limit
"""
)
_DROP_OLD = text("DELETE FROM agent_events WHERE at < :before")
_DROP_SURPLUS = text(
    """
DELETE FROM agent_events WHERE id IN (
    SELECT id FROM (
        SELECT id, row_number() OVER (PARTITION BY node_id ORDER BY at DESC, id DESC) AS place
        FROM agent_events
    ) AS placed WHERE place > :most
)
"""
)


@dataclass(frozen=True)
class Place:
    """Between two events of a node: everything before (`at`, `id`) is still to be read.

    `at` has microseconds; `str` is the form in which a client gets and returns it.
    """

    at: datetime
    id: int

    def __str__(self) -> str:
        return f"{(self.at - _EPOCH) // _MICROSECOND}-{self.id}"


def parse_place(written: str) -> Place:
    """The place that `str(Place)` has written. Raises QueryError."""
    at_us, _, event_id = written.partition("-")
    parts = (at_us, event_id)
    if all(part.isascii() and part.isdigit() and len(part) < 20 for part in parts):
        seconds, rest_us = divmod(int(at_us), 10**6)
        if seconds < 2**33 and int(event_id) <= _MAX_ID:
            return Place(to_datetime(seconds) + rest_us * _MICROSECOND, int(event_id))
    raise QueryError(
        f"older_than={written[:40]!r} is no place between events",
        remedy="send `older` of the answer before as it is, or leave it away for the newest",
    )


async def list_events(
    connection: AsyncConnection,
    name: str,
    from_s: float,
    until_s: float,
    kind: str | None = None,
    older_than: Place | None = None,
    limit: int = 100,
) -> tuple[list[dict[str, Any]], Place | None]:
    """Events of the node `name`, newest first, at most `limit`, of Unix times [from_s, until_s),
    and where the next page begins, None after the last one. Raises UnknownNodeError."""
    node_id = await connection.scalar(_NODE, {"name": name})
    if node_id is None:
        raise UnknownNodeError(f"no node is called {name[:80]!r}")
    until = to_datetime(until_s)
    start = older_than or Place(until, 0)
    parameters = {
        "node_id": node_id,
        "since": to_datetime(from_s),
        "until": until,
        "last_at": start.at,
        "last_id": start.id,
        "kind": kind,
        "limit": limit + 1,
    }
    rows = (await connection.execute(_EVENTS, parameters)).all()
    shown = rows[:limit]
    events = [
        {
            "at": format_time((row.at - _EPOCH).total_seconds()),
            "kind": row.kind,
            "reason": row.reason,
            "words": row.words,
            "value": row.value,
            "limit": row.limit,
            "before": row.before,
            "after": row.after,
        }
        for row in shown
    ]
    more = len(rows) > limit
    return events, Place(shown[-1].at, shown[-1].id) if more else None


def drop_events(connection: Connection, before: datetime, most: int = MAX_NODE_EVENTS) -> int:
    """Drop the events from before `before` and all but the newest `most` of each node, in the
    caller's transaction; how many."""
    old = connection.execute(_DROP_OLD, {"before": before})
    surplus = connection.execute(_DROP_SURPLUS, {"most": most})
    return old.rowcount + surplus.rowcount
