"""What was refused of each node, counted by reason: for the fleet page, beside the metrics.

Counts are kept here and written every few seconds, so that a node that sends nothing but rubbish
costs no transaction a request. A failure to write them only postpones that.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.ext.asyncio import AsyncEngine

from aggregator.db import connection_scope, driver_connection
from aggregator.errors import AggregatorError, DatabaseError, wire_status
from aggregator.ingest.errors import UnknownNumberError
from aggregator.ingest.runs import columns
from aggregator.telemetry import Metrics
from wire.errors import WireError

LOG = logging.getLogger(__name__)
WRITE_EVERY_S = 2.0
# Only of nodes that are there still.
_ADD = """
    INSERT INTO node_refusals AS old (node_id, reason, count)
    SELECT node_id, reason, count FROM unnest(%s::int[], %s::text[], %s::bigint[])
        AS new (node_id, reason, count) JOIN nodes ON nodes.id = new.node_id
    ORDER BY node_id, reason
    ON CONFLICT (node_id, reason) DO UPDATE SET last_at = now(),
        count = least(old.count + excluded.count, 4611686018427387904)
"""


class Refusals:
    """Counts by node and reason. Reasons are words of this program, so there are few."""

    def __init__(self, database: AsyncEngine, metrics: Metrics) -> None:
        self._database = database
        self._metrics = metrics
        self._counts: Counter[tuple[int, str]] = Counter()
        self._writing = asyncio.Lock()

    def clear(self) -> None:
        """Forget what is not written yet."""
        self._counts.clear()

    def note(self, node_id: int, reason: str, count: int = 1) -> None:
        """So many things of the node were refused."""
        if count:
            self._counts[node_id, reason] += count
            self._metrics.dropped.labels(reason).inc(count)

    @contextmanager
    def noting(self, node_id: int) -> Iterator[None]:
        """Count an error with which a whole request of the node is refused, by its code
        (`flamefleet_refused` has it too)."""
        try:
            yield
        except UnknownNumberError:  # no fault: it comes again whole
            raise
        except (AggregatorError, WireError) as error:
            code = wire_status(error)[1] if isinstance(error, WireError) else error.code
            self._counts[node_id, code] += 1
            raise

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await asyncio.sleep(WRITE_EVERY_S)
            await self.write()

    async def write(self) -> None:
        """Write what has come since the last time."""
        async with self._writing:
            await self._write()

    async def _write(self) -> None:
        counts, self._counts = self._counts, Counter()
        if not counts:
            return
        rows = [(node_id, reason, count) for (node_id, reason), count in sorted(counts.items())]
        try:
            async with connection_scope(self._database) as connection:
                driver = await driver_connection(connection)
                await driver.execute(_ADD, columns(rows))
        except DatabaseError as error:
            LOG.warning("refusals of %d nodes are not written yet: %s", len(rows), error)
            self._counts.update(counts)
