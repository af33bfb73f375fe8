"""Jobs of alerts (see `aggregator.celery_app`)."""

from sqlalchemy import Engine

from aggregator.alerts.agent_state import evaluate_limits, evaluate_pauses
from aggregator.alerts.deliveries import deliver_due
from aggregator.alerts.node_state import evaluate_clocks, evaluate_clones
from aggregator.alerts.rules import ClockRule, CloneRule, EventRule, OverheadRule
from aggregator.alerts.service import evaluate_overhead
from aggregator.config import CentreConfig
from aggregator.db import session_scope


def evaluate(engine: Engine, config: CentreConfig) -> int:
    """Judge every node by every rule; how many alerts started or ended."""
    rule = OverheadRule(config.overhead_cpu_percent, config.overhead_memory_bytes)
    urls = [webhook.url for webhook in config.webhooks]
    with session_scope(engine) as session:
        changed = evaluate_overhead(session, rule, urls)
    with session_scope(engine) as session:
        changed += evaluate_clones(session, CloneRule(), urls)
        changed += evaluate_clocks(session, ClockRule(), urls)
    with session_scope(engine) as session:
        changed += evaluate_pauses(session, EventRule(), urls)
        changed += evaluate_limits(session, EventRule(), urls)
    return changed.started + changed.ended


def deliver(engine: Engine, config: CentreConfig) -> int:
    """Send the webhooks that are due; how many were taken."""
    return deliver_due(engine, config.webhooks).delivered
