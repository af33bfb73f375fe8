"""Starts and ends alerts about what an agent did or met: pauses, and limits of its unit."""

from collections.abc import Sequence

from sqlalchemy import Row, TextClause, text
from sqlalchemy.orm import Session

from aggregator.alerts.changes import Evaluation, end_alert, start_alert
from aggregator.alerts.rules import (
    LIMITED_RULE,
    PAUSED_RULE,
    Change,
    EventRule,
    Excess,
    judge_recent,
)
from aggregator.fleet.removal import IS_PRESENT

# Times of a node are brought to the centre's clock. What comes late, from a spool, is no alert.
_PAUSES = text(
    f"""
    SELECT nodes.id AS node_id, firing.id AS alert_id, firing.detail, last.samples AS value,
           0::float8 AS threshold, 'paused_samples' AS quantity, '' AS words,
           extract(epoch FROM now() - last.ended_at)::float8
               - coalesce(nodes.clock_offset_ms, 0) / 1000.0::float8 AS ago_s
    FROM nodes
    LEFT JOIN alerts firing
           ON firing.node_id = nodes.id AND firing.rule = :rule AND firing.state = 'firing'
    LEFT JOIN LATERAL (
        SELECT o.at + make_interval(secs => o.duration_s) AS ended_at,
               (o.detail->'lost'->>'paused')::float8 AS samples
        FROM node_overhead o
        WHERE o.node_id = nodes.id AND o.detail->'lost' ? 'paused'
          AND o.at > now() - make_interval(
              secs => 2 * :window_s + greatest(coalesce(nodes.clock_offset_ms, 0), 0) / 1000.0)
        ORDER BY o.at DESC LIMIT 1
    ) last ON true
    WHERE {IS_PRESENT} AND (firing.id IS NOT NULL OR last.ended_at IS NOT NULL)
    ORDER BY nodes.id
    """
)
_LIMITS = text(
    f"""
    SELECT nodes.id AS node_id, firing.id AS alert_id, firing.detail, last.value,
           last."limit" AS threshold, last.reason AS quantity, last.words,
           extract(epoch FROM now() - last.at)::float8
               - coalesce(nodes.clock_offset_ms, 0) / 1000.0::float8 AS ago_s
    FROM nodes
    LEFT JOIN alerts firing
           ON firing.node_id = nodes.id AND firing.rule = :rule AND firing.state = 'firing'
    LEFT JOIN LATERAL (
        SELECT e.at, e.reason, e.words, e.value, e."limit" FROM agent_events e
        WHERE e.node_id = nodes.id AND e.kind = 'unit_limit'
          AND e.at > now() - make_interval(
              secs => :window_s + greatest(coalesce(nodes.clock_offset_ms, 0), 0) / 1000.0)
        ORDER BY e.at DESC, e.id DESC LIMIT 1
    ) last ON true
    WHERE {IS_PRESENT} AND (firing.id IS NOT NULL OR last.at IS NOT NULL)
    ORDER BY nodes.id
    """
)


def evaluate_pauses(session: Session, rule: EventRule, urls: Sequence[str]) -> Evaluation:
    """Judge whether the governor of each node has paused; the value is the samples left out of
    the batch that said so."""
    return _evaluate(session, _PAUSES, PAUSED_RULE, rule, urls)


def evaluate_limits(session: Session, rule: EventRule, urls: Sequence[str]) -> Evaluation:
    """Judge the last limit of its unit that each agent met; value and threshold are the event's."""
    return _evaluate(session, _LIMITS, LIMITED_RULE, rule, urls)


def _evaluate(
    session: Session, query: TextClause, name: str, rule: EventRule, urls: Sequence[str]
) -> Evaluation:
    started = ended = 0
    for row in session.execute(query, {"rule": name, "window_s": rule.window_s}):
        change = judge_recent(rule, row.ago_s, firing=row.alert_id is not None)
        if change is Change.START:
            started += _start(session, name, row, urls)
        elif change is Change.END:
            ended += end_alert(session, row.alert_id, row.detail, urls)
    return Evaluation(started, ended)


def _start(session: Session, name: str, row: Row[tuple[object, ...]], urls: Sequence[str]) -> bool:
    excess = Excess(row.quantity, row.value, row.threshold)
    detail = {"words": row.words} if row.words else {}
    return start_alert(session, name, row.node_id, excess, detail, urls)
