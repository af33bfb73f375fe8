"""Starts and ends overhead alerts."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import text, update
from sqlalchemy.orm import Session

from aggregator.alerts.changes import Evaluation, end_alert, start_alert
from aggregator.alerts.models import Alert
from aggregator.alerts.rules import (
    OVERHEAD_RULE,
    Change,
    Excess,
    OverheadMean,
    OverheadRule,
    judge,
    over_whole_window,
    worst_excess,
)
from aggregator.fleet.removal import IS_PRESENT

# A report's time is the node's clock at the start of its batch; the rule means its end, by the
# centre's clock. Batches longer than the window widen it, or they would never be two.
_MEANS = text(
    f"""
    SELECT nodes.id AS node_id, count(recent.at) AS reports,
           coalesce(sum(recent.cpu_percent * recent.duration_s)
                    / nullif(sum(recent.duration_s), 0), 0)::float8 AS cpu_percent,
           coalesce(avg(recent.memory_bytes), 0)::float8 AS memory_bytes,
           coalesce(extract(epoch FROM
               max(recent.at + make_interval(secs => recent.duration_s)) - min(recent.at)
           ), 0)::float8 AS span_s, coalesce(max(recent.duration_s), 0)::float8 AS report_s,
           firing.id AS alert_id, firing.detail
    FROM nodes
    LEFT JOIN alerts firing
           ON firing.node_id = nodes.id AND firing.rule = :rule AND firing.state = 'firing'
    LEFT JOIN LATERAL (
        SELECT o.duration_s FROM node_overhead o
        WHERE o.node_id = nodes.id AND o.at > now() - interval '1 day'
        ORDER BY o.at DESC LIMIT 1
    ) latest ON true
    LEFT JOIN LATERAL (
        SELECT o.at, o.duration_s, o.cpu_percent, o.memory_bytes FROM node_overhead o
        WHERE o.node_id = nodes.id AND o.at > now() - interval '1 day'
          AND o.at
              + make_interval(secs => o.duration_s + coalesce(nodes.clock_offset_ms, 0) / 1000.0)
              > now() - make_interval(secs => greatest(:window_s, 2.5 * latest.duration_s))
    ) recent ON true
    WHERE {IS_PRESENT} AND (firing.id IS NOT NULL OR nodes.last_seen_at > now() - interval '1 hour')
    GROUP BY nodes.id, firing.id, firing.detail
    ORDER BY nodes.id
    """
)


def evaluate_overhead(session: Session, rule: OverheadRule, urls: Sequence[str]) -> Evaluation:
    """Judge every node; start and end alerts and add one delivery for each URL.

    A node that stopped reporting keeps its alert, with `stale` in its detail: silence is no proof
    that the overhead is gone.
    """
    started = ended = 0
    for row in session.execute(_MEANS, {"rule": OVERHEAD_RULE, "window_s": rule.window_s}):
        mean = OverheadMean(row.reports, row.cpu_percent, row.memory_bytes)
        if row.alert_id is None:
            mean = over_whole_window(rule, mean, row.span_s, row.report_s)
        change = judge(rule, mean, firing=row.alert_id is not None)
        if change is Change.START:
            excess = worst_excess(rule, mean)
            detail = {"stale": False, "start": _readings(mean, excess)}
            started += start_alert(session, OVERHEAD_RULE, row.node_id, excess, detail, urls)
        elif change is Change.END:
            readings = _readings(mean, worst_excess(rule, mean))
            detail = {**row.detail, "stale": False, "end": readings}
            ended += end_alert(session, row.alert_id, detail, urls)
        elif row.alert_id is not None:
            _mark_stale(session, row.alert_id, row.detail, stale=mean.reports == 0)
    return Evaluation(started, ended)


def _mark_stale(session: Session, alert_id: int, detail: dict[str, Any], stale: bool) -> None:
    if bool(detail.get("stale")) != stale:
        session.execute(
            update(Alert)
            .where(Alert.id == alert_id, Alert.state == "firing")
            .values(detail={**detail, "stale": stale})
        )


def _readings(mean: OverheadMean, excess: Excess) -> dict[str, Any]:
    return {
        "quantity": excess.quantity,
        "reports": mean.reports,
        "cpu_percent": round(mean.cpu_percent, 4),
        "memory_bytes": round(mean.memory_bytes),
    }
