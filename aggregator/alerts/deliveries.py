"""Takes due deliveries one by one, sends them, and writes down how it went.

A delivery is claimed by moving its next attempt into the future before anything is sent, and no
transaction is open while a receiver takes its time. A worker that dies in between loses nothing:
the claim runs out and the message goes again with the same id, by which receivers drop it.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session, aliased

from aggregator.alerts.errors import AlertsError
from aggregator.alerts.message import AlertFacts, alert_message
from aggregator.alerts.models import Alert, Delivery
from aggregator.alerts.retry import next_delay_s
from aggregator.alerts.webhooks import TOTAL_TIMEOUT_S, send_webhook
from aggregator.config import Webhook
from aggregator.db import session_scope
from aggregator.fleet.models import Node

MOST_AT_ONCE = 8  # of one run; the rest is due again at once
_CLAIM = timedelta(seconds=8 * TOTAL_TIMEOUT_S)  # resolving the name may take long as well
_MOST_ERROR_CHARS = 500

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Claim:
    """A delivery that this worker is to send now, for the `attempts`-th time."""

    id: int
    url: str
    webhook_id: str
    attempts: int
    age_s: float
    facts: AlertFacts


@dataclass(frozen=True)
class Sent:
    """What one run over the due deliveries did."""

    delivered: int = 0
    failed: int = 0
    given_up: int = 0


def deliver_due(engine: Engine, webhooks: Sequence[Webhook]) -> Sent:
    """Send what is due, at most MOST_AT_ONCE."""
    by_url = {webhook.url: webhook for webhook in webhooks}
    outcomes = []
    for _ in range(MOST_AT_ONCE):
        with session_scope(engine) as session:
            claim = claim_due(session)
        if claim is None:
            break
        error = _send(claim, by_url)
        with session_scope(engine) as session:
            outcomes.append(_record(session, claim, error, claim.url in by_url))
    return Sent(*(outcomes.count(kind) for kind in ("delivered", "failed", "given up")))


def claim_due(session: Session) -> Claim | None:
    """The delivery that has waited longest, now ours for a while; None when nothing is due.

    The end of an alert waits until its start was delivered to the same URL or given up.
    """
    start = aliased(Delivery)
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
    due = (
        select(Delivery.id)
        .where(
            Delivery.delivered_at.is_(None),
            Delivery.next_attempt_at <= func.now(),
            (Delivery.event == "firing") | ~start_waits,
        )
        .order_by(Delivery.next_attempt_at, Delivery.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    claimed = session.execute(
        update(Delivery)
        .where(Delivery.id == due.scalar_subquery())
        .values(attempts=Delivery.attempts + 1, next_attempt_at=func.now() + _CLAIM)
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
    )


def _send(claim: Claim, by_url: Mapping[str, Webhook]) -> str:
    """Why it failed; empty when it was delivered."""
    webhook = by_url.get(claim.url)
    if webhook is None:
        return "this webhook is not configured any more"
    try:
        send_webhook(webhook, claim.webhook_id, alert_message(claim.facts))
    except AlertsError as error:
        return error.message
    return ""


def _record(session: Session, claim: Claim, error: str, configured: bool) -> str:
    mine = update(Delivery).where(Delivery.id == claim.id, Delivery.delivered_at.is_(None))
    if not error:
        session.execute(mine.values(delivered_at=func.now(), next_attempt_at=None, last_error=None))
        return "delivered"
    delay_s = next_delay_s(claim.attempts, claim.age_s) if configured else None
    if delay_s is None:
        words = f"given up after {claim.attempts} attempts: {error}"
        _log.error("webhook %s %s", claim.webhook_id, words)
        session.execute(mine.values(next_attempt_at=None, last_error=words[:_MOST_ERROR_CHARS]))
        return "given up"
    _log.warning("webhook %s failed, again in %d s: %s", claim.webhook_id, delay_s, error)
    session.execute(
        mine.values(
            next_attempt_at=func.now() + timedelta(seconds=delay_s),
            last_error=error[:_MOST_ERROR_CHARS],
        )
    )
    return "failed"
