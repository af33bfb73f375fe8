"""Which life of the database this is: ids that are remembered are worth something only in one.

A database that goes back to an earlier state gives the same ids again, to other stacks, labels and
nodes. What is remembered by id is bound to what tells such a state from the one before:

- the cluster, its timeline and the start of its server, which change when files are put back, a
  replica takes over, or the log is replayed up to some moment;
- the database's oid and the tables' files, which change when a dump is read in;
- the place in the log, which goes back with the whole machine;
- the newest stack and labels that are remembered, which are other ones where rows were put back.

Asked in each transaction that relies on ids: one look at what the server has in memory.
"""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import psycopg

from aggregator.errors import DatabaseUnavailableError

LOG = logging.getLogger(__name__)
_LOOK = """
    SELECT (SELECT system_identifier FROM pg_control_system()),
        pg_postmaster_start_time(),
        left(pg_walfile_name(pg_current_wal_insert_lsn()), 8),
        (SELECT oid FROM pg_database WHERE datname = current_database()),
        pg_relation_filenode('stacks'), pg_relation_filenode('series'),
        pg_relation_filenode('nodes'),
        (pg_current_wal_insert_lsn() - '0/0')::bigint,
        (SELECT uuid_send(hash) FROM stacks WHERE id = %s),
        (SELECT key_hash FROM series WHERE id = %s)
"""
_IDENTITY = 7  # columns


class RestoredError(DatabaseUnavailableError):
    """The database is not the one that what is remembered is of; the next try is with the new."""

    code = "database_restored"
    remedy = "send it again; ids of before were forgotten"


class Row(NamedTuple):
    """A row that must not change: its id, and what it is of."""

    id: int
    value: bytes


class Incarnation:
    """The life that is known, numbered by `epoch`, and what is to be forgotten when it ends."""

    def __init__(self) -> None:
        self.epoch = 0
        self._identity: tuple[Any, ...] | None = None
        self._lsn = 0
        self._stack: Row | None = None
        self._series: Row | None = None
        self._forgetting: list[Callable[[], None]] = []

    def on_end(self, forget: Callable[[], None]) -> None:
        """Have `forget` called whenever a life ends."""
        self._forgetting.append(forget)

    def saw_stack(self, stack_id: int, stack_hash: bytes) -> None:
        """A stack that is there; the newest is looked for each time."""
        if self._stack is None or stack_id > self._stack.id:
            self._stack = Row(stack_id, stack_hash)

    def saw_series(self, series_id: int, key_hash: bytes) -> None:
        """A set of labels that is there."""
        if self._series is None or series_id > self._series.id:
            self._series = Row(series_id, key_hash)

    async def look(self, driver: psycopg.AsyncConnection[Any]) -> int:
        """The epoch of the database behind `driver`, in its transaction; a new one where it is not
        the one of before."""
        lsn, stack, series = self._lsn, self._stack, self._series
        ids = stack.id if stack else None, series.id if series else None
        row = await (await driver.execute(_LOOK, ids)).fetchone()
        assert row is not None  # a SELECT without FROM
        identity, (now_lsn, found_stack, found_series) = row[:_IDENTITY], row[_IDENTITY:]
        # Others may have looked meanwhile: what is known now may be newer than this answer.
        if (
            identity != self._identity
            or now_lsn < lsn
            or (stack is not None and found_stack != stack.value)
            or (series is not None and found_series != series.value)
        ):
            self._begin(identity)
        self._lsn = max(self._lsn, now_lsn)
        return self.epoch

    async def check(self, driver: psycopg.AsyncConnection[Any], epoch: int) -> None:
        """Raise RestoredError unless what was remembered in `epoch` is of this database."""
        await self.look(driver)
        self.hold(epoch)

    def hold(self, epoch: int) -> None:
        """Raise RestoredError when another life began since `epoch`."""
        if epoch != self.epoch:
            raise RestoredError("the database was restored or started anew")

    def _begin(self, identity: tuple[Any, ...]) -> None:
        is_first = self._identity is None
        self._identity, self._lsn, self._stack, self._series = identity, 0, None, None
        if is_first:  # nothing is remembered yet
            return
        LOG.warning(
            "the database was restored or started anew: ids of stacks, labels and nodes are read "
            "again"
        )
        self.epoch += 1
        for forget in self._forgetting:
            forget()
