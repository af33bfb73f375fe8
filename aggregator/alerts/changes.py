"""Writes down that an alert starts or ends, and which webhooks are to say so.

Each start and each end happens exactly once, however many workers judge at the same time: a unique
index allows one firing alert of a rule and node, and only the transaction that changed a row adds
deliveries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from aggregator.alerts.models import Alert, Delivery
from aggregator.alerts.rules import Excess


@dataclass(frozen=True)
class Evaluation:
    """What one pass over all nodes changed."""

    started: int = 0
    ended: int = 0

    def __add__(self, other: "Evaluation") -> "Evaluation":
        return Evaluation(self.started + other.started, self.ended + other.ended)


def start_alert(
    session: Session,
    rule: str,
    node_id: int,
    excess: Excess,
    detail: Mapping[str, Any],
    urls: Sequence[str],
) -> bool:
    """Let `rule` fire for the node, with a delivery for each URL; False if it does already."""
    alert_id = session.scalar(
        insert(Alert)
        .values(
            rule=rule,
            node_id=node_id,
            state="firing",
            value=excess.value,
            threshold=excess.threshold,
            detail={"quantity": excess.quantity, **detail},
        )
        .on_conflict_do_nothing()
        .returning(Alert.id)
    )
    if alert_id is None:
        return False  # another worker was first
    _add_deliveries(session, alert_id, "firing", urls)
    return True


def end_alert(
    session: Session, alert_id: int, detail: Mapping[str, Any], urls: Sequence[str]
) -> bool:
    """End the alert, with a delivery for each URL that was told of its start; False if it has
    ended already."""
    changed = session.scalar(
        update(Alert)
        .where(Alert.id == alert_id, Alert.state == "firing")
        .values(state="resolved", ended_at=func.now(), detail=dict(detail))
        .returning(Alert.id)
    )
    if changed is None:
        return False  # another worker was first
    told = select(Delivery.url).where(Delivery.alert_id == alert_id, Delivery.event == "firing")
    heard_of_start = set(session.scalars(told))
    _add_deliveries(session, alert_id, "resolved", [u for u in urls if u in heard_of_start])
    return True


def _add_deliveries(session: Session, alert_id: int, event: str, urls: Sequence[str]) -> None:
    rows = [
        {"alert_id": alert_id, "event": event, "url": url, "webhook_id": f"msg_{uuid4().hex}"}
        for url in dict.fromkeys(urls)
    ]
    if rows:
        session.execute(insert(Delivery).on_conflict_do_nothing(), rows)
