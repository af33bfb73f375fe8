"""The nodes by name, as `flamefleet node list` shows them."""

from datetime import datetime, timezone
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session

from aggregator.fleet.removal import IS_PRESENT
from aggregator.fleet.service import node_state

_ROSTER = text(
    f"""
    SELECT name, last_seen_at, removed_at, removed_by,
        (SELECT count(*) FROM node_tokens
         WHERE node_tokens.node_id = nodes.id AND revoked_at IS NULL) AS tokens
    FROM nodes WHERE CASE WHEN :removed THEN NOT {IS_PRESENT} ELSE {IS_PRESENT} END
    ORDER BY name
    """
)


class Member(NamedTuple):
    """One node; `removed_at` and `removed_by` of one that is gone."""

    name: str
    state: str
    last_seen: datetime | None
    tokens: int
    removed_at: datetime | None
    removed_by: str | None


def list_roster(session: Session, *, removed: bool) -> list[Member]:
    """The nodes of the fleet, or those `removed` from it."""
    now = datetime.now(timezone.utc)
    return [
        Member(
            row.name,
            node_state(row.last_seen_at, now),
            row.last_seen_at,
            row.tokens,
            row.removed_at if removed else None,
            row.removed_by if removed else None,
        )
        for row in session.execute(_ROSTER, {"removed": removed})
    ]
