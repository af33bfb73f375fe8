"""Jobs of the fleet (see `aggregator.celery_app`)."""

from datetime import timedelta

from sqlalchemy import Engine

from aggregator.config import CentreConfig
from aggregator.db import database_errors
from aggregator.fleet.events import drop_events
from aggregator.profiles.partitions import utc_now


def drop_old_events(engine: Engine, config: CentreConfig) -> int:
    """Drop events whose retention (that of the overhead) is over, and surplus ones; how many."""
    before = utc_now() - timedelta(seconds=config.retention.overhead_s)
    with database_errors(), engine.begin() as connection:
        return drop_events(connection, before)
