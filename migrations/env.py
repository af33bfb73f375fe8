"""Runs migrations: one at a time, each in a transaction that never waits long for a lock.

`aggregator.db.run_migrations` hands its connection over in `config.attributes`.
"""

import re
from typing import Any

from alembic import context
from sqlalchemy import text

import aggregator.access.models
import aggregator.alerts.models
import aggregator.fleet.models
import aggregator.ingest.models
import aggregator.jobs.models
import aggregator.on_demand.models
import aggregator.profiles.models
import aggregator.symbols.models  # noqa: F401 (each import adds its tables to Model.metadata)
from aggregator.db import Model

LOCK_TIMEOUT = "4s"  # a migration that waits for a table blocks everyone behind it
STATEMENT_TIMEOUT = "300s"
ADVISORY_LOCK = 0x466C616D65  # "Flame": two processes that start at once migrate one by one
PARTITION = re.compile(r"(node_prof|node_overhead)_\d")


def include_object(item: Any, name: str | None, kind: str, reflected: bool, other: Any) -> bool:
    """Leave partitions out of comparisons: `aggregator.profiles.partitions` makes them."""
    table = name if kind == "table" else getattr(getattr(item, "table", None), "name", None)
    return not (reflected and table is not None and PARTITION.match(table))


def run() -> None:
    connection = context.config.attributes["connection"]
    # A session lock: it must outlive the transaction of each single migration.
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ADVISORY_LOCK})
    try:
        connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
        connection.execute(text(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'"))
        connection.commit()
        context.configure(
            connection=connection,
            target_metadata=Model.metadata,
            include_object=include_object,
            compare_server_default=True,
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": ADVISORY_LOCK})
        connection.execute(text("RESET lock_timeout"))
        connection.commit()


run()
