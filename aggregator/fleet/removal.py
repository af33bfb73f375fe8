"""Nodes that are no part of the fleet any more: removed by an operator, or forgotten as silent.

A removed node's row stays as long as there is history of it, so that what it sent stays readable;
it is not listed, has no alerts, and takes no profiles. An operator's removal revokes its tokens;
silence does not, so a host that was off for long comes back by itself with its next batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from aggregator.access.errors import UnknownNodeError
from aggregator.access.service import revoke_tokens
from aggregator.alerts.changes import end_alert
from aggregator.config import Retention
from aggregator.fleet.models import Node

SILENCE = "silence"  # `removed_by` of a node that was forgotten
_KEPT_LONGER = timedelta(days=2)  # than what is kept of it: partitions are dropped by days
_HAS_TOKEN = (
    "EXISTS (SELECT FROM node_tokens WHERE node_tokens.node_id = nodes.id AND revoked_at IS NULL)"
)
# Has come back: it was silent, or an operator gave it a new token.
_IS_BACK = f"(nodes.last_seen_at > nodes.removed_at AND {_HAS_TOKEN})"
# SQL: whether the node of the table `nodes` is part of the fleet.
IS_PRESENT = f"(nodes.removed_at IS NULL OR {_IS_BACK})"
_SILENT = text(
    "UPDATE nodes SET removed_at = now(), removed_by = :by "
    "WHERE removed_at IS NULL AND last_seen_at < now() - make_interval(days => :days)"
)
_BACK = text(f"UPDATE nodes SET removed_at = NULL, removed_by = NULL WHERE {_IS_BACK}")
_FIRING = text(
    "SELECT alerts.id, alerts.detail FROM alerts JOIN nodes ON nodes.id = alerts.node_id "
    f"WHERE alerts.state = 'firing' AND NOT {IS_PRESENT}"
)
_DROP = text(
    "DELETE FROM nodes WHERE removed_at < now() - CAST(:kept AS interval) "
    f"AND NOT {_HAS_TOKEN} AND NOT EXISTS (SELECT FROM node_prof WHERE node_id = nodes.id)"
)


@dataclass(frozen=True)
class Removed:
    """What a removal did."""

    name: str
    tokens_revoked: int
    alerts_resolved: int


def remove_node(session: Session, name: str, by: str, urls: Sequence[str]) -> Removed:
    """Take the node `name` out of the fleet: revoke its tokens and end its alerts, with a delivery
    for each of `urls` that heard of their start. Raises UnknownNodeError, also for one that is
    removed already."""
    row = session.execute(
        select(Node.id).where(Node.name == name, text(IS_PRESENT)).with_for_update()
    ).one_or_none()
    if row is None:
        raise UnknownNodeError(
            f"no node is called {name[:253]!r}", remedy="`flamefleet node list` shows all nodes"
        )
    revoked = revoke_tokens(session, name)
    values = {"removed_at": text("now()"), "removed_by": by}
    session.execute(update(Node).where(Node.id == row.id).values(values))
    return Removed(name, revoked, end_alerts_of_absent(session, urls))


def forget_silent(session: Session, days: int, urls: Sequence[str]) -> int:
    """Forget the nodes that were silent for `days` (0: none), list again those that are back, and
    end the alerts of all that are gone; how many nodes and alerts changed."""
    changed: int = session.execute(_BACK).rowcount  # type: ignore[attr-defined]  # a CursorResult
    if days:
        silent = session.execute(_SILENT, {"by": SILENCE, "days": days})
        changed += silent.rowcount  # type: ignore[attr-defined]  # a CursorResult
    return changed + end_alerts_of_absent(session, urls)


def drop_removed(session: Session, retention: Retention) -> int:
    """Drop the rows of removed nodes of which nothing is left; how many."""
    longest_s = max(retention.profiles_10s_s, retention.profiles_60s_s, retention.overhead_s)
    kept = timedelta(seconds=longest_s) + _KEPT_LONGER
    dropped = session.execute(_DROP, {"kept": kept})
    count: int = dropped.rowcount  # type: ignore[attr-defined]  # a CursorResult
    return count


def end_alerts_of_absent(session: Session, urls: Sequence[str]) -> int:
    """End the alerts of nodes that are no part of the fleet; how many."""
    ended = 0
    for alert_id, detail in session.execute(_FIRING).all():
        end = {**detail.get("end", {}), "removed": True}
        ended += end_alert(session, alert_id, {**detail, "end": end}, urls)
    return ended
