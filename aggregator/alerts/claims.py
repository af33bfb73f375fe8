"""Claims a delivery before it is sent: one at a time of each receiver, by whichever worker."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session, aliased

from aggregator.alerts.message import AlertFacts
from aggregator.alerts.models import Alert, Delivery
from aggregator.alerts.webhooks import TOTAL_TIMEOUT_S
from aggregator.fleet.models import Node

_CLAIM = timedelta(seconds=4 * TOTAL_TIMEOUT_S)  # look-up and exchange, twice as long as they last
_LANE_LOCK = 0x466C616D  # of pg_advisory_xact_lock, with a number made of the URL


@dataclass(frozen=True)
class Claim:
    """A delivery that this worker is to send now, for the `attempts`-th time."""

    id: int
    url: str
    webhook_id: str
    attempts: int
    age_s: float
    facts: AlertFacts


def due_urls(session: Session) -> list[str]:
    """The receivers for which something is due; those that rest are left out by `claim_due`."""
    due = select(Delivery.url).where(
        Delivery.delivered_at.is_(None), Delivery.next_attempt_at <= func.now()
    )
    return list(session.scalars(due.distinct().order_by(Delivery.url)))


def claim_due(session: Session, url: str) -> Claim | None:
    """The delivery to `url` that has waited longest, now ours for a while; None when nothing is
    due, another worker sends to it, or it rests.

    The end of an alert waits until its start was delivered to the same URL or given up.
    """
    lock = func.pg_try_advisory_xact_lock(_LANE_LOCK, func.hashtext(url))
    if not session.scalar(select(lock)):
        return None  # another worker claims one just now
    start, other = aliased(Delivery), aliased(Delivery)
    start_waits = (
        select(start.id)
        .where(
            start.alert_id == Delivery.alert_id,
            start.url == Delivery.url,
            start.event == "firing",
            start.delivered_at.is_(None),
            start.next_attempt_at.is_not(None),
        )
        .exists()
    )
    lane_is_taken = (
        select(other.id)
        .where(
            other.url == url,
            other.delivered_at.is_(None),
            or_(other.claimed_until > func.now(), other.unreachable_until > func.now()),
        )
        .exists()
    )
    due = (
        select(Delivery.id)
        .where(
            Delivery.url == url,
            Delivery.delivered_at.is_(None),
            Delivery.next_attempt_at <= func.now(),
            (Delivery.event == "firing") | ~start_waits,
            ~lane_is_taken,
        )
        .order_by(Delivery.next_attempt_at, Delivery.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    claimed = session.execute(
        update(Delivery)
        .where(Delivery.id == due.scalar_subquery())
        .values(attempts=Delivery.attempts + 1, claimed_until=func.now() + _CLAIM)
        .returning(
            Delivery.id, Delivery.url, Delivery.webhook_id, Delivery.attempts, Delivery.event
        )
    ).one_or_none()
    if claimed is None:
        return None
    event_at = Alert.started_at if claimed.event == "firing" else Alert.ended_at
    alert = session.execute(
        select(Alert, Node.name, func.extract("epoch", func.now() - event_at))
        .join(Node, Node.id == Alert.node_id)
        .join(Delivery, Delivery.alert_id == Alert.id)
        .where(Delivery.id == claimed.id)
    ).one()
    facts = _facts(alert[0], alert[1], claimed.event)
    age_s = float(alert[2] or 0)
    return Claim(claimed.id, claimed.url, claimed.webhook_id, claimed.attempts, age_s, facts)


def _facts(alert: Alert, host: str, event: str) -> AlertFacts:
    return AlertFacts(
        rule=alert.rule,
        host=host,
        event=event,
        started_at=alert.started_at,
        ended_at=alert.ended_at,
        quantity=str(alert.detail.get("quantity", "")),
        value=alert.value,
        threshold=alert.threshold,
        is_silent=bool(alert.detail.get("end", {}).get("silent")),
        words=str(alert.detail.get("words", "")),
        is_removed=bool(alert.detail.get("end", {}).get("removed")),
    )
