"""Symbols to ask of nodes, looked up rarely: the look-up costs more than storing a batch.

A node is asked about with its next batch after it has reported modules to this process, as long as
there was something to ask, and every ASK_EVERY_S for what other processes know.
"""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.sql import ColumnElement

from aggregator.db import connection_scope
from aggregator.errors import DatabaseError
from aggregator.ingest.models import Run
from aggregator.ingest.recent import Recent
from aggregator.symbols.service import wanted_directives
from aggregator.telemetry import Metrics
from wire.schema import Directive

LOG = logging.getLogger(__name__)
ASK_EVERY_S = 30.0
NODES_REMEMBERED = 100_000


class Directives:
    """What to ask of which node, and when to look that up again."""

    def __init__(
        self,
        database: AsyncEngine,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._clock = clock
        self._next_look_s: Recent[int, float] = Recent(NODES_REMEMBERED)

    def reported(self, node_id: int) -> None:
        """The node has reported modules: look at its next batch."""
        self._next_look_s.put(node_id, self._clock())

    def clear(self) -> None:
        """Forget when nodes were looked at."""
        self._next_look_s.clear()

    async def wanted(self, node_ids: Iterable[int]) -> dict[int, list[Directive]]:
        """Directives by node. A failure is counted and only postpones them."""
        now = self._clock()
        due = sorted(n for n in set(node_ids) if (self._next_look_s.get(n) or 0.0) <= now)
        directives: dict[int, list[Directive]] = {}
        if not due:
            return directives
        try:
            async with connection_scope(self._database) as connection:
                for node_id in due:
                    started_at = _started_at(node_id)
                    asked = await wanted_directives(connection, node_id, started_at)
                    directives[node_id] = [*asked]
        except DatabaseError as error:
            LOG.warning("symbols could not be asked for: %s", error)
            self._metrics.dropped.labels("directives").inc()
            return {}
        for node_id, given in directives.items():
            self._next_look_s.put(node_id, now if given else now + ASK_EVERY_S)
        return directives


def _started_at(node_id: int) -> ColumnElement[Any]:
    """When the newest run of this node began to send."""
    return select(func.max(Run.started_at)).where(Run.node_id == node_id).scalar_subquery()
