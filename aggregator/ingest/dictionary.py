"""Dense ids of stacks and series, given on first sight in short transactions of their own.

Ids are looked up before anything is inserted, because an insert that conflicts burns an id; rows
are inserted in order, so that two aggregators never wait for each other in a circle.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np
import psycopg
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncEngine

from aggregator.db import connection_scope, driver_connection
from aggregator.incarnation import Incarnation
from aggregator.ingest.batches import HASH_BYTES, split_hashes
from aggregator.ingest.errors import UnknownNumberError
from aggregator.ingest.recent import Recent
from aggregator.ingest.series import SeriesKey

STACKS_REMEMBERED = 200_000  # about 150 bytes each
SERIES_REMEMBERED = 50_000
LABEL_BYTES_REMEMBERED = 16 << 20  # a set of labels has 600 bytes, or as many as a node makes it
STACKS_AT_ONCE = 2_048  # in a transaction
MOST_REFUSALS = 8  # nodes; a stack whose frames were refused of so many is wanted of none
Value = TypeVar("Value")

_FIND_STACKS = """
    SELECT stacks.id, stacks.frames IS NOT NULL, stacks.refused_by
    FROM unnest(%s::uuid[]) WITH ORDINALITY AS seen (hash, n)
    LEFT JOIN stacks ON stacks.hash = seen.hash ORDER BY n
"""
_ADD_STACKS = """
    INSERT INTO stacks (hash) SELECT hash FROM unnest(%s::uuid[]) AS seen (hash) ORDER BY hash
    ON CONFLICT (hash) DO NOTHING
"""
_FIND_HASHES = "SELECT id, hash FROM stacks WHERE id = ANY(%s)"
_FIND_LABELS = "SELECT id, labels FROM series WHERE id = ANY(%s)"
_FIND_SERIES = "SELECT key_hash, id FROM series WHERE key_hash = ANY(%s)"
_ADD_SERIES = """
    INSERT INTO series (key_hash, service, version, labels)
    SELECT key_hash, service, version, labels::jsonb
    FROM unnest(%s::bytea[], %s::text[], %s::text[], %s::text[])
        AS seen (key_hash, service, version, labels)
    ORDER BY key_hash ON CONFLICT (key_hash) DO NOTHING
"""


class KnownStack(NamedTuple):
    """The id of a stack, whether its frames are known, and the nodes whose frames of it were
    refused."""

    id: int
    is_defined: bool
    refused_by: Sequence[int] | None = None
    is_new: bool = False  # came up just now

    def is_wanted_of(self, node_id: int) -> bool:
        """Whether this node shall define it. What was refused of it comes no better."""
        if self.is_defined or self.refused_by is None:
            return not self.is_defined
        return node_id not in self.refused_by and len(self.refused_by) < MOST_REFUSALS


class Dictionary:
    """Ids of stacks and series; what is settled (stacks with frames, series) is remembered."""

    def __init__(
        self,
        database: AsyncEngine,
        incarnation: Incarnation,
        stacks_remembered: int = STACKS_REMEMBERED,
        series_remembered: int = SERIES_REMEMBERED,
    ) -> None:
        self._database = database
        self._incarnation = incarnation
        self._stacks: Recent[bytes, int] = Recent(stacks_remembered)
        self._series: Recent[bytes, int] = Recent(series_remembered)
        self._hashes: Recent[int, bytes] = Recent(stacks_remembered)
        self._labels: Recent[int, dict[str, str]] = Recent(LABEL_BYTES_REMEMBERED, _weigh_labels)
        for table in (self._stacks, self._series, self._hashes, self._labels):
            incarnation.on_end(table.clear)

    def count_unknown(self, hashes: Collection[bytes]) -> int:
        """How many of these stacks have to be looked for in the database."""
        return sum(self._stacks.get(stack_hash) is None for stack_hash in hashes)

    async def stack_ids(self, hashes: Collection[bytes]) -> dict[bytes, KnownStack]:
        """What is known of each 16-byte hash. New hashes get an id.

        Other work of the event loop goes on between any STACKS_AT_ONCE of them.
        """
        ordered = sorted(hashes)
        found: dict[bytes, KnownStack] = {}
        for start in range(0, len(ordered), STACKS_AT_ONCE):
            if start:
                await asyncio.sleep(0)
            unsettled = []
            for stack_hash in ordered[start : start + STACKS_AT_ONCE]:
                known = self._stacks.get(stack_hash)
                if known is None:
                    unsettled.append(stack_hash)
                else:
                    found[stack_hash] = KnownStack(known, is_defined=True)
            if unsettled:
                found.update(zip(unsettled, await self._settle(unsettled), strict=True))
        return found

    async def _settle(self, hashes: list[bytes]) -> list[KnownStack]:
        stacks = await self._find_or_add(hashes)
        for stack_hash, stack in zip(hashes, stacks, strict=True):
            self._hashes.put(stack.id, stack_hash)
            self._incarnation.saw_stack(stack.id, stack_hash)
            if stack.is_defined:
                self._stacks.put(stack_hash, stack.id)
        return stacks

    async def _find_or_add(self, hashes: list[bytes]) -> list[KnownStack]:
        async with self._transaction() as driver:
            rows = await _find_stacks(driver, hashes)
            new = [h for h, row in zip(hashes, rows, strict=True) if row[0] is None]
            if new:
                await driver.execute(_ADD_STACKS, (uuid_array(b"".join(new)),))
                rows = await _find_stacks(driver, hashes)
            added = set(new)
            return [
                KnownStack(row[0], row[1], row[2], h in added)
                for h, row in zip(hashes, rows, strict=True)
            ]

    async def stack_hashes(self, numbers: Sequence[int]) -> list[bytes]:
        """The hashes of the stacks with these ids. Raises UnknownNumberError."""
        found, missing = _remembered(self._hashes, numbers)
        if missing:
            async with self._transaction() as driver:
                cursor = driver.cursor(binary=True)
                await cursor.execute(_FIND_HASHES, (missing,))
                found.update((number, value.bytes) for number, value in await cursor.fetchall())
            _require("stack", missing, found)
            for number in missing:
                self._hashes.put(number, found[number])
        return [found[number] for number in numbers]

    async def series_labels(self, numbers: Collection[int]) -> dict[int, dict[str, str]]:
        """The labels of the series with these ids. Raises UnknownNumberError."""
        found, missing = _remembered(self._labels, numbers)
        if missing:
            async with self._transaction() as driver:
                rows = await (await driver.execute(_FIND_LABELS, (missing,))).fetchall()
            found.update(rows)
            _require("series", missing, found)
            for number in missing:
                self._labels.put(number, found[number])
        return found

    async def series_ids(
        self, series: Collection[SeriesKey]
    ) -> tuple[dict[bytes, int], set[bytes]]:
        """Id of each set of labels, by its key hash, and the hashes of those that are new and got
        one."""
        keys = {key.key_hash: key for key in series}
        found: dict[bytes, int] = {}
        for key_hash in keys:
            known = self._series.get(key_hash)
            if known is not None:
                found[key_hash] = known
        missing = sorted(keys.keys() - found.keys())
        new: set[bytes] = set()
        if missing:
            async with self._transaction() as driver:
                settled, new = await self._settle_series(driver, [keys[k] for k in missing])
            for key_hash, series_id in settled.items():
                self._series.put(key_hash, series_id)
                self._incarnation.saw_series(series_id, key_hash)
            found.update(settled)
        return found, new

    async def _settle_series(
        self, driver: psycopg.AsyncConnection[Any], series: list[SeriesKey]
    ) -> tuple[dict[bytes, int], set[bytes]]:
        key_hashes = [key.key_hash for key in series]
        new: list[SeriesKey] = []
        rows = await (await driver.execute(_FIND_SERIES, (key_hashes,))).fetchall()
        if len(rows) < len(series):
            known = {bytes(row[0]) for row in rows}
            new = [key for key in series if key.key_hash not in known]
            await driver.execute(
                _ADD_SERIES,
                (
                    [key.key_hash for key in new],
                    [key.service for key in new],
                    [key.version for key in new],
                    [key.labels_json for key in new],
                ),
            )
            rows = await (await driver.execute(_FIND_SERIES, (key_hashes,))).fetchall()
        found = {bytes(key_hash): int(series_id) for key_hash, series_id in rows}
        return found, {key.key_hash for key in new}

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """A transaction whose ids may be remembered once it has ended: it raises RestoredError when
        the database that they are of is no more."""
        async with connection_scope(self._database) as connection:
            driver = await driver_connection(connection)
            epoch = await self._incarnation.look(driver)
            yield driver
        self._incarnation.hold(epoch)


def _weigh_labels(labels: Mapping[str, str]) -> int:
    """About how many bytes a set of labels takes."""
    return 200 + sum(150 + len(name) + len(value) for name, value in labels.items())


def _remembered(
    table: Recent[int, Value], numbers: Collection[int]
) -> tuple[dict[int, Value], list[int]]:
    """What the table has of these numbers, and the numbers that it lacks."""
    pairs = ((number, table.get(number)) for number in numbers)
    found = {number: value for number, value in pairs if value is not None}
    return found, [number for number in numbers if number not in found]


def _require(kind: str, numbers: Collection[int], found: Collection[int]) -> None:
    unknown = [number for number in numbers if number not in found]
    if unknown:
        raise UnknownNumberError(f"{len(unknown)} numbers are of no {kind} here, as {unknown[0]}")


def uuid_array(hashes: bytes) -> str:
    """Packed 16-byte hashes as the text of a Postgres uuid[]: far cheaper than UUID objects."""
    return "{" + hashes.hex(",", HASH_BYTES) + "}"


def ids_of(hashes: bytes, found: Mapping[bytes, KnownStack]) -> NDArray[np.int64]:
    """The ids of packed `hashes`, in their order."""
    return np.array([found[h].id for h in split_hashes(hashes)], np.int64)


def pack_numbers(ids: NDArray[np.int64]) -> bytes:
    """Ids as numbers of the wire, u32; 0, none, for one beyond that."""
    return np.where(ids < 2**32, ids, 0).astype("<u4").tobytes()


async def _find_stacks(
    driver: psycopg.AsyncConnection[Any], hashes: list[bytes]
) -> list[tuple[Any, ...]]:
    cursor = driver.cursor(binary=True)
    await cursor.execute(_FIND_STACKS, (uuid_array(b"".join(hashes)),))
    return await cursor.fetchall()
