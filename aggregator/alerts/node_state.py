"""Starts and ends alerts about what ingest wrote on a node: a refused clone, its clock's offset."""

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.orm import Session

from aggregator.alerts.changes import Evaluation, end_alert, start_alert
from aggregator.alerts.rules import (
    CLOCK_RULE,
    CLONE_RULE,
    Change,
    ClockRule,
    CloneRule,
    Excess,
    judge_clock,
    judge_recent,
)
from aggregator.fleet.machines import RECENT_RUNS, count_machines
from aggregator.fleet.removal import IS_PRESENT

_CLONES = text(
    f"""
    SELECT nodes.id AS node_id, firing.id AS alert_id, firing.detail,
           extract(epoch FROM now() - nodes.clone_refused_at)::float8 AS refused_ago_s
    FROM nodes
    LEFT JOIN alerts firing
           ON firing.node_id = nodes.id AND firing.rule = :rule AND firing.state = 'firing'
    WHERE {IS_PRESENT} AND (firing.id IS NOT NULL OR nodes.id = ANY(:several)
       OR nodes.clone_refused_at > now() - make_interval(secs => :window_s))
    ORDER BY nodes.id
    """
)
# A release that writes no `clock_read_at` read the clock with each batch.
_CLOCKS = text(
    f"""
    SELECT nodes.id AS node_id, firing.id AS alert_id, firing.detail,
           nodes.clock_offset_ms / 1000.0::float8 AS offset_s,
           extract(epoch FROM now() - coalesce(nodes.clock_read_at, nodes.last_seen_at))::float8
               AS read_ago_s
    FROM nodes
    LEFT JOIN alerts firing
           ON firing.node_id = nodes.id AND firing.rule = :rule AND firing.state = 'firing'
    WHERE {IS_PRESENT} AND (firing.id IS NOT NULL OR abs(nodes.clock_offset_ms) > 1000 * :start_s)
    ORDER BY nodes.id
    """
)


def evaluate_clones(session: Session, rule: CloneRule, urls: Sequence[str]) -> Evaluation:
    """Judge who sends as each node: a batch that was refused as a clone's, or runs that come by
    turns; the alert's value is the number of hosts too many."""
    machines = count_machines(session.execute(text(RECENT_RUNS)))
    started = ended = 0
    parameters = {"rule": CLONE_RULE, "window_s": rule.window_s, "several": list(machines)}
    for row in session.execute(_CLONES, parameters):
        hosts = machines.get(row.node_id, 1)
        seen_ago_s = 0.0 if hosts > 1 else row.refused_ago_s
        change = judge_recent(rule, seen_ago_s, firing=row.alert_id is not None)
        if change is Change.START:
            excess = Excess("clones", max(hosts - 1, 1), 0)
            started += start_alert(session, CLONE_RULE, row.node_id, excess, {}, urls)
        elif change is Change.END:
            ended += end_alert(session, row.alert_id, row.detail, urls)
    return Evaluation(started, ended)


def evaluate_clocks(session: Session, rule: ClockRule, urls: Sequence[str]) -> Evaluation:
    """Judge every node's clock; the value is the centre's clock minus the node's, in seconds.

    A node that has been silent for `rule.known_for_s` has none, and a firing one ends saying so.
    """
    started = ended = 0
    for row in session.execute(_CLOCKS, {"rule": CLOCK_RULE, "start_s": rule.start_s}):
        firing = row.alert_id is not None
        change = judge_clock(rule, row.offset_s, row.read_ago_s, firing)
        if change is Change.START:
            excess = Excess("clock_offset_s", row.offset_s, rule.start_s)
            started += start_alert(session, CLOCK_RULE, row.node_id, excess, {}, urls)
        elif change is Change.END:
            is_silent = row.read_ago_s > rule.known_for_s
            detail = {**row.detail, "end": {"clock_offset_s": row.offset_s, "silent": is_silent}}
            ended += end_alert(session, row.alert_id, detail, urls)
    return Evaluation(started, ended)
