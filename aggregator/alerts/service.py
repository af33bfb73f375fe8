"""Starts and ends overhead alerts, and writes down which webhooks are to say so.

Each start and each end happens exactly once, however many workers judge at the same time: a unique
index allows one firing alert a node, and only the transaction that changed a row adds deliveries.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from sqlalchemy import Row, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from aggregator.alerts.models import Alert, Delivery
from aggregator.alerts.rules import (
    OVERHEAD_RULE,
    Change,
    Excess,
    OverheadMean,
    OverheadRule,
    judge,
    worst_excess,
)

# A report's time is the node's clock at the start of its batch; the rule means its end, by the
# centre's clock. Batches longer than the window widen it, or they would never be two.
_MEANS = text(
    """
    SELECT n.id AS node_id, count(recent.at) AS reports,
           coalesce(avg(recent.cpu_percent), 0)::float8 AS cpu_percent,
           coalesce(avg(recent.memory_bytes), 0)::float8 AS memory_bytes,
           firing.id AS alert_id, firing.detail
    FROM nodes n
    LEFT JOIN alerts firing
           ON firing.node_id = n.id AND firing.rule = :rule AND firing.state = 'firing'
    LEFT JOIN LATERAL (
        SELECT o.duration_s FROM node_overhead o
        WHERE o.node_id = n.id AND o.at > now() - interval '1 day'
        ORDER BY o.at DESC LIMIT 1
    ) latest ON true
    LEFT JOIN LATERAL (
        SELECT o.at, o.cpu_percent, o.memory_bytes FROM node_overhead o
        WHERE o.node_id = n.id AND o.at > now() - interval '1 day'
          AND o.at + make_interval(secs => o.duration_s + coalesce(n.clock_offset_ms, 0) / 1000.0)
              > now() - make_interval(secs => greatest(:window_s, 2.5 * latest.duration_s))
    ) recent ON true
    WHERE firing.id IS NOT NULL OR n.last_seen_at > now() - interval '1 hour'
    GROUP BY n.id, firing.id, firing.detail
    ORDER BY n.id
    """
)


@dataclass(frozen=True)
class Evaluation:
    """What one pass over all nodes changed."""

    started: int = 0
    ended: int = 0


def evaluate_overhead(session: Session, rule: OverheadRule, urls: Sequence[str]) -> Evaluation:
    """Judge every node; start and end alerts and add one delivery for each URL.

    A node that stopped reporting keeps its alert, with `stale` in its detail: silence is no proof
    that the overhead is gone.
    """
    started = ended = 0
    for row in session.execute(_MEANS, {"rule": OVERHEAD_RULE, "window_s": rule.window_s}):
        mean = OverheadMean(row.reports, row.cpu_percent, row.memory_bytes)
        change = judge(rule, mean, firing=row.alert_id is not None)
        if change is Change.START:
            started += _start(session, rule, row.node_id, mean, urls)
        elif change is Change.END:
            ended += _end(session, rule, row, mean, urls)
        elif row.alert_id is not None:
            _mark_stale(session, row.alert_id, row.detail, stale=mean.reports == 0)
    return Evaluation(started, ended)


def _start(
    session: Session, rule: OverheadRule, node_id: int, mean: OverheadMean, urls: Sequence[str]
) -> bool:
    excess = worst_excess(rule, mean)
    alert_id = session.scalar(
        insert(Alert)
        .values(
            rule=OVERHEAD_RULE,
            node_id=node_id,
            state="firing",
            value=excess.value,
            threshold=excess.threshold,
            detail={"quantity": excess.quantity, "stale": False, "start": _readings(mean, excess)},
        )
        .on_conflict_do_nothing()
        .returning(Alert.id)
    )
    if alert_id is None:
        return False  # another worker was first
    _add_deliveries(session, alert_id, "firing", urls)
    return True


def _end(
    session: Session, rule: OverheadRule, row: Row[Any], mean: OverheadMean, urls: Sequence[str]
) -> bool:
    detail = {**row.detail, "stale": False, "end": _readings(mean, worst_excess(rule, mean))}
    changed = session.scalar(
        update(Alert)
        .where(Alert.id == row.alert_id, Alert.state == "firing")
        .values(state="resolved", ended_at=func.now(), detail=detail)
        .returning(Alert.id)
    )
    if changed is None:
        return False  # another worker was first
    told = select(Delivery.url).where(Delivery.alert_id == row.alert_id, Delivery.event == "firing")
    heard_of_start = set(session.scalars(told))
    _add_deliveries(session, row.alert_id, "resolved", [u for u in urls if u in heard_of_start])
    return True


def _mark_stale(session: Session, alert_id: int, detail: dict[str, Any], stale: bool) -> None:
    if bool(detail.get("stale")) != stale:
        session.execute(
            update(Alert)
            .where(Alert.id == alert_id, Alert.state == "firing")
            .values(detail={**detail, "stale": stale})
        )


def _add_deliveries(session: Session, alert_id: int, event: str, urls: Sequence[str]) -> None:
    rows = [
        {"alert_id": alert_id, "event": event, "url": url, "webhook_id": f"msg_{uuid4().hex}"}
        for url in dict.fromkeys(urls)
    ]
    if rows:
        session.execute(insert(Delivery).on_conflict_do_nothing(), rows)


def _readings(mean: OverheadMean, excess: Excess) -> dict[str, Any]:
    return {
        "quantity": excess.quantity,
        "reports": mean.reports,
        "cpu_percent": round(mean.cpu_percent, 4),
        "memory_bytes": round(mean.memory_bytes),
    }
