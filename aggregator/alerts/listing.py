"""Alerts and their deliveries, as the API and the fleet page show them."""

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from aggregator.alerts.models import Alert, Delivery
from aggregator.fleet.models import Node

MOST_LISTED = 200


async def list_alerts(session: AsyncSession, limit: int = MOST_LISTED) -> list[dict[str, Any]]:
    """The newest alerts, firing ones first, each with its deliveries."""
    found = (
        await session.execute(
            select(Alert, Node.name)
            .join(Node, Node.id == Alert.node_id)
            .order_by(Alert.state != "firing", Alert.started_at.desc(), Alert.id.desc())
            .limit(limit)
        )
    ).all()
    ids = [row[0].id for row in found]
    sent = await session.scalars(
        select(Delivery).where(Delivery.alert_id.in_(ids)).order_by(Delivery.id)
    )
    deliveries: dict[int, list[Delivery]] = {alert_id: [] for alert_id in ids}
    for delivery in sent:
        deliveries[delivery.alert_id].append(delivery)
    return [_alert(alert, host, deliveries[alert.id]) for alert, host in found]


def _alert(alert: Alert, host: str, deliveries: Sequence[Delivery]) -> dict[str, Any]:
    return {
        "id": alert.id,
        "rule": alert.rule,
        "host": host,
        "state": alert.state,
        "started_at": _rfc3339(alert.started_at),
        "ended_at": _rfc3339(alert.ended_at),
        "value": alert.value,
        "threshold": alert.threshold,
        "detail": alert.detail,
        "deliveries": [_delivery(each) for each in deliveries],
    }


def _delivery(delivery: Delivery) -> dict[str, Any]:
    return {
        "event": delivery.event,
        "webhook_id": delivery.webhook_id,
        "to": _origin(delivery.url),
        "state": _state(delivery),
        "attempts": delivery.attempts,
        "delivered_at": _rfc3339(delivery.delivered_at),
        "next_attempt_at": _rfc3339(delivery.next_attempt_at),
        "last_error": delivery.last_error,
    }


def _state(delivery: Delivery) -> str:
    if delivery.delivered_at is not None:
        return "delivered"
    return "pending" if delivery.next_attempt_at is not None else "given up"


def _origin(url: str) -> str:
    """Scheme, host and port only: paths and logins of webhooks are often secrets."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(an unreadable URL)"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _rfc3339(at: datetime | None) -> str | None:
    if at is None:
        return None
    return at.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
