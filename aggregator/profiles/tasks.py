"""Jobs of profiles (see `aggregator.celery_app`)."""

from datetime import datetime, timezone

from sqlalchemy import Engine

from aggregator.config import CentreConfig
from aggregator.db import database_errors
from aggregator.profiles.compaction import compact
from aggregator.profiles.partitions import drop_partitions, make_partitions


def compact_minutes(engine: Engine, config: CentreConfig) -> int:
    """Roll ended minutes up; how many."""
    return compact(engine)


def make_partitions_ahead(engine: Engine, config: CentreConfig) -> int:
    """Make the partitions that the coming hours need; how many were missing."""
    with database_errors(), engine.begin() as connection:
        return len(make_partitions(connection, _now(), config.retention))


def drop_old_partitions(engine: Engine, config: CentreConfig) -> int:
    """Drop the partitions whose retention is over; how many."""
    return len(drop_partitions(engine, _now(), config.retention))


def _now() -> datetime:
    return datetime.now(timezone.utc)
