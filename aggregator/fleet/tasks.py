"""Jobs of the fleet (see `aggregator.celery_app`)."""

from datetime import timedelta

from sqlalchemy import Engine

from aggregator.config import CentreConfig
from aggregator.db import database_errors, session_scope
from aggregator.fleet.events import drop_events
from aggregator.fleet.removal import drop_removed, forget_silent
from aggregator.profiles.partitions import utc_now


def drop_old_events(engine: Engine, config: CentreConfig) -> int:
    """Drop events whose retention (that of the overhead) is over, and surplus ones; how many."""
    before = utc_now() - timedelta(seconds=config.retention.overhead_s)
    with database_errors(), engine.begin() as connection:
        return drop_events(connection, before)


def forget_nodes(engine: Engine, config: CentreConfig) -> int:
    """Forget silent nodes, and drop removed ones of which nothing is left; how many changed."""
    urls = [webhook.url for webhook in config.webhooks]
    with session_scope(engine) as session:
        forgotten = forget_silent(session, config.forget_silent_days, urls)
        return forgotten + drop_removed(session, config.retention)
