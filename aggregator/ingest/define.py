"""Store checked definitions: modules, who has them, frames, and the stacks made of them.

All in one transaction and in one order (modules, their nodes, frames, stacks; each sorted by its
key), so that any number of definitions of the same things run at once without a deadlock. Only
stacks that a batch has brought and that have no frames yet are defined; the first definition stays.
A stack that has no frames yet and is refused of a node notes that, and is not wanted of it again.
"""

from typing import Any, NamedTuple

import numpy as np
import psycopg
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncEngine

from aggregator.db import connection_scope, driver_connection
from aggregator.incarnation import Incarnation
from aggregator.ingest.definitions import CheckedDefinitions
from aggregator.ingest.dictionary import MOST_REFUSALS, uuid_array
from wire.schema import ModuleKind

_FIND_WANTED = """
    SELECT n - 1 FROM unnest(%s::uuid[]) WITH ORDINALITY AS given (hash, n)
    JOIN stacks ON stacks.hash = given.hash WHERE stacks.frames IS NULL ORDER BY n
"""
_FIND_MODULES = """
    SELECT n - 1, modules.id
    FROM unnest(%s::smallint[], %s::bytea[]) WITH ORDINALITY AS given (kind, build_id, n)
    JOIN modules ON modules.kind = given.kind AND modules.build_id = given.build_id
"""
_ADD_MODULES = f"""
    INSERT INTO modules (kind, build_id, name, hash64, symbol_state, defined_by)
    SELECT kind, build_id, name, hash64,
        CASE kind WHEN {ModuleKind.NAMED.value} THEN 'ready' ELSE 'missing' END, %s
    FROM unnest(%s::smallint[], %s::bytea[], %s::text[], %s::bigint[])
        AS given (kind, build_id, name, hash64)
    ORDER BY kind, build_id ON CONFLICT (kind, build_id) DO NOTHING
"""
_ADD_MODULE_NODES = """
    INSERT INTO module_nodes (module_id, node_id)
    SELECT module_id, %s FROM unnest(%s::int[]) AS given (module_id) ORDER BY module_id
    ON CONFLICT (module_id, node_id) DO UPDATE SET seen_at = now()
        WHERE module_nodes.seen_at < now() - interval '1 hour'
"""
_FIND_FRAMES = """
    SELECT n - 1, frames.id
    FROM unnest(%s::int[], %s::bigint[]) WITH ORDINALITY AS given (module_id, place, n)
    JOIN frames ON frames.module_id = given.module_id AND frames."offset" = given.place
"""
_ADD_FRAMES = """
    INSERT INTO frames (module_id, "offset", function, file, line, resolved)
    SELECT module_id, place, function, nullif(file, ''), nullif(line, 0), function IS NOT NULL
    FROM unnest(%s::int[], %s::bigint[], %s::text[], %s::text[], %s::bigint[])
        AS given (module_id, place, function, file, line)
    ORDER BY module_id, place ON CONFLICT (module_id, "offset") DO NOTHING
"""
_LOCK_STACKS = "SELECT id FROM stacks WHERE hash = ANY(%s::uuid[]) ORDER BY hash FOR UPDATE"
_DEFINE_STACKS = """
    UPDATE stacks SET frames = given.frames, defined_by = %s, refused_by = NULL
    FROM unnest(%s::uuid[], %s::bytea[]) AS given (hash, frames)
    WHERE stacks.hash = given.hash AND stacks.frames IS NULL
"""
_REFUSE_STACKS = """
    UPDATE stacks SET refused_by = array_append(refused_by, %s)
    WHERE hash = ANY(%s::uuid[]) AND frames IS NULL
        AND (refused_by IS NULL OR NOT %s = ANY(refused_by) AND cardinality(refused_by) < %s)
"""
Driver = psycopg.AsyncConnection[Any]


class Defined(NamedTuple):
    """What definitions brought."""

    stacks: int
    new_frames: int


async def define_stacks(
    database: AsyncEngine,
    incarnation: Incarnation,
    epoch: int,
    node_id: int,
    given: CheckedDefinitions,
) -> Defined:
    """Store what of `given` is still wanted, and note what is refused. The node was identified in
    `epoch` of the database: RestoredError after its end."""
    async with connection_scope(database) as connection:
        driver = await driver_connection(connection)
        await incarnation.check(driver, epoch)
        defined = await _define(driver, node_id, given)
        refused = sorted({stack for stacks in given.refused.values() for stack in stacks})
        if refused:
            array = uuid_array(b"".join(refused))
            await driver.execute(_LOCK_STACKS, (array,))
            await driver.execute(_REFUSE_STACKS, (node_id, array, node_id, MOST_REFUSALS))
        return defined


async def _define(driver: Driver, node_id: int, given: CheckedDefinitions) -> Defined:
    rows = await _fetch(driver, _FIND_WANTED, uuid_array(given.hashes))
    if not rows:
        return Defined(0, 0)
    wanted = np.array(rows, np.int64).reshape(-1)
    used = _used_frames(given, wanted)
    modules = await _store_modules(driver, node_id, given, np.unique(given.frame_module[used]))
    frame_ids, new_frames = await _store_frames(driver, given, used, modules)
    stacks = await _store_stacks(driver, node_id, given, wanted, frame_ids)
    return Defined(stacks, new_frames)


def _used_frames(given: CheckedDefinitions, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indexes of the frames that the wanted stacks are made of."""
    marks = np.zeros(len(given.starts) - 1, bool)
    marks[wanted] = True
    return np.unique(given.stack_frames[np.repeat(marks, np.diff(given.starts))])


async def _fetch(driver: Driver, query: str, *columns: Any) -> list[tuple[Any, ...]]:
    cursor = driver.cursor(binary=True)
    await cursor.execute(query, columns)
    return await cursor.fetchall()


async def _store_modules(
    driver: Driver, node_id: int, given: CheckedDefinitions, used: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Database ids by index into `given.modules` (0 where unused)."""
    modules = [given.modules[i] for i in used.tolist()]
    kinds, build_ids = [m.kind for m in modules], [m.id for m in modules]
    rows = await _fetch(driver, _FIND_MODULES, kinds, build_ids)
    if len(rows) < len(modules):
        found = {row[0] for row in rows}
        new = [i for i in range(len(modules)) if i not in found]
        await driver.execute(
            _ADD_MODULES,
            (
                node_id,
                [kinds[i] for i in new],
                [build_ids[i] for i in new],
                [modules[i].name for i in new],
                given.module_hashes[used[new]].tolist(),
            ),
        )
        rows = await _fetch(driver, _FIND_MODULES, kinds, build_ids)
    ids = np.zeros(len(given.modules), np.int64)
    for position, module_id in rows:
        ids[used[position]] = module_id
    await driver.execute(_ADD_MODULE_NODES, (node_id, np.unique(ids[used]).tolist()))
    return ids


async def _store_frames(
    driver: Driver,
    given: CheckedDefinitions,
    used: NDArray[np.int64],
    modules: NDArray[np.int64],
) -> tuple[NDArray[np.uint32], int]:
    """Database ids by index into the frames of `given` (0 where unused), and how many are new."""
    module_ids = modules[given.frame_module[used]].tolist()
    offsets = given.frame_offset[used].tolist()
    rows = await _fetch(driver, _FIND_FRAMES, module_ids, offsets)
    new_frames = len(used) - len(rows)
    if new_frames:
        found = {row[0] for row in rows}
        new = [i for i in range(len(used)) if i not in found]
        names = [given.names[n] if n >= 0 else None for n in given.frame_name[used[new]].tolist()]
        await driver.execute(
            _ADD_FRAMES,
            (
                [module_ids[i] for i in new],
                [offsets[i] for i in new],
                [name.function if name else None for name in names],
                [name.file if name else None for name in names],
                [name.line if name else None for name in names],
            ),
        )
        rows = await _fetch(driver, _FIND_FRAMES, module_ids, offsets)
    ids = np.zeros(len(given.frame_module), np.uint32)
    positions = np.array(rows, np.int64).reshape(-1, 2)
    ids[used[positions[:, 0]]] = positions[:, 1]
    return ids, new_frames


async def _store_stacks(
    driver: Driver,
    node_id: int,
    given: CheckedDefinitions,
    wanted: NDArray[np.int64],
    frame_ids: NDArray[np.uint32],
) -> int:
    packed = frame_ids[given.stack_frames].astype("<u4").tobytes()
    edges = (given.starts * 4).tolist()
    hashes = b"".join(given.hashes[16 * i : 16 * i + 16] for i in wanted.tolist())
    frames = [packed[edges[i] : edges[i + 1]] for i in wanted.tolist()]
    array = uuid_array(hashes)
    await driver.execute(_LOCK_STACKS, (array,))
    return (await driver.execute(_DEFINE_STACKS, (node_id, array, frames))).rowcount
