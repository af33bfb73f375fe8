"""A database that goes back to an earlier state under a running aggregator gives ids again: nothing
may be counted as what they stood for before."""

import asyncio
import shutil
import subprocess

import pytest
from aiohttp.test_utils import TestClient, TestServer
from sqlalchemy import create_engine, text

from aggregator.access.service import create_token
from aggregator.app import create_app
from aggregator.app_keys import INCARNATION
from aggregator.config import CentreConfig
from aggregator.db import create_sync_database, run_migrations, session_scope
from aggregator.incarnation import RestoredError
from wire.codec import SHORT_TYPE, decode
from wire.schema import Answer

SERVICES = ("api", "worker", "cache")


class Fleet:
    """An aggregator on `url`, and nodes of it."""

    def __init__(self, url, client, make_node):
        self.url, self.client, self._make_node = url, client, make_node

    def run(self, statement):
        engine = create_sync_database(self.url, 1)
        with engine.begin() as connection:
            result = connection.execute(text(statement))
            rows = [tuple(row) for row in result] if result.returns_rows else []
        engine.dispose()
        return rows

    def enrol(self, name):
        engine = create_sync_database(self.url, 1)
        with session_scope(engine) as session:
            token = create_token(session, name)
        engine.dispose()
        return self._make_node(name, token, self.client)

    async def post(self, node, batch):
        """The answer to a batch that is sent until it is taken, as the shipper does."""
        for _ in range(600):
            headers = {"Accept": SHORT_TYPE}
            async with await node.post("/api/v1/batches", batch, **headers) as response:
                if response.status == 200:
                    return decode(await response.read(), Answer)
                assert response.status == 503, await response.text()
            await asyncio.sleep(0.05)
        raise AssertionError("never taken")

    async def send(self, node, stacks_by_service):
        """Batches with one stack each, defined, so that the aggregator remembers their ids."""
        for service, stack in stacks_by_service.items():
            answer = await self.post(node, node.batch({stack: 19}, {"service": service}))
            if answer.want:
                async with await node.post(
                    "/api/v1/definitions", node.definitions([stack])
                ) as response:
                    assert response.status in (200, 204), await response.text()
            await self.post(node, node.batch({stack: 19}, {"service": service}))

    async def folded(self, query=""):
        parameters = {"format": "folded", "query": query}
        for _ in range(600):
            async with self.client.get("/api/v1/flamegraph", params=parameters) as response:
                if response.status == 200:
                    lines = (await response.text()).splitlines()
                    return dict(line.rsplit(" ", 1) for line in lines)
                assert response.status == 503, await response.text()
            await asyncio.sleep(0.05)
        raise AssertionError("never answered")


def path(service, stack):
    """The line of a stack without symbols."""
    return ";".join([service, *(f"demo+0x{offset:x}" for _, offset in stack)])


@pytest.fixture
async def fleet(own_postgres, valkey_url, node):
    """On a server that may be stopped, with a node that has sent something before the copy."""
    await asyncio.to_thread(run_migrations, own_postgres.url)
    config = CentreConfig(own_postgres.url, valkey_url)
    async with TestClient(TestServer(create_app(config))) as client:
        yield Fleet(own_postgres.url, client, type(node))


async def go_back(fleet, stacks, change):
    """Send more after the copy, let `change` bring the copy back, and send the same stacks and
    labels in another order: each then has the id that another had."""
    later = await asyncio.to_thread(fleet.enrol, "web-2")
    await fleet.send(later, dict(zip(SERVICES, stacks, strict=True)))
    assert await fleet.folded()
    await asyncio.to_thread(change)
    # Another node takes the id that web-2 had.
    other = await asyncio.to_thread(fleet.enrol, "web-3")
    reverse = dict(zip(SERVICES[::-1], stacks[::-1], strict=True))
    async with await later.post("/api/v1/batches", later.batch({stacks[0]: 19})) as response:
        assert response.status in (401, 503)
    await fleet.send(other, reverse)

    expected = {path(service, stack): "2000000000" for service, stack in reverse.items()}
    assert await fleet.folded('{host="web-3"}') == expected
    assert await fleet.folded('{host="web-2"}') == {}
    [(hosts,)] = fleet.run(
        "SELECT array_agg(DISTINCT name ORDER BY name) FROM node_prof JOIN nodes ON id = node_id"
    )
    assert hosts == ["web-1", "web-3"]


async def test_a_copy_of_the_data_folder(fleet, own_postgres, stack_of, tmp_path):
    first = await asyncio.to_thread(fleet.enrol, "web-1")
    await fleet.send(first, {"api": stack_of(90)})
    folder, copy = own_postgres.postgres.data_dir, tmp_path / "copy"

    def copy_files():
        own_postgres.stop()
        subprocess.run(["cp", "-a", folder, copy], check=True)
        own_postgres.start()

    def put_back():
        own_postgres.stop()
        shutil.rmtree(folder)
        subprocess.run(["cp", "-a", copy, folder], check=True)
        own_postgres.start()

    await asyncio.to_thread(copy_files)
    # Sent again, as to any server that was away.
    await fleet.send(first, {"api": stack_of(90)})
    await go_back(fleet, [stack_of(n) for n in range(3)], put_back)


async def test_a_dump_that_is_read_in_under_the_old_name(fleet, own_postgres, stack_of):
    url = own_postgres.url
    first = await asyncio.to_thread(fleet.enrol, "web-1")
    await fleet.send(first, {"api": stack_of(90)})

    def administer(*statements):
        engine = create_engine(
            url.replace("/postgres?", "/template1?"), isolation_level="AUTOCOMMIT"
        )
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))
        engine.dispose()

    await asyncio.to_thread(
        administer,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'postgres'",
        "CREATE DATABASE copy TEMPLATE postgres",
    )
    await go_back(
        fleet,
        [stack_of(n) for n in range(3)],
        lambda: administer(
            "DROP DATABASE postgres WITH (FORCE)", "ALTER DATABASE copy RENAME TO postgres"
        ),
    )


async def test_rows_that_are_put_back(fleet, stack_of):
    """Tables and files are the same ones; only what they hold is of before."""
    first = await asyncio.to_thread(fleet.enrol, "web-1")
    await fleet.send(first, {"api": stack_of(90)})
    marks = {
        table: fleet.run(f"SELECT coalesce(max(id), 0) FROM {table}")[0][0]
        for table in ("stacks", "series", "frames", "modules", "runs", "nodes")
    }

    def put_back():
        fleet.run(f"DELETE FROM node_prof WHERE node_id > {marks['nodes']}")
        for table, mark in marks.items():
            fleet.run(f"DELETE FROM {table} WHERE id > {mark}")
            fleet.run(f"ALTER TABLE {table} ALTER id RESTART WITH {mark + 1}")

    await go_back(fleet, [stack_of(n) for n in range(3)], put_back)


async def test_ids_are_remembered_while_nothing_happens(client, node, stack_of, app):
    for _ in range(3):
        await node.send(node.batch({stack_of(1): 1}))
        await node.define([stack_of(1)])
        async with client.get("/api/v1/flamegraph") as response:
            assert response.status == 200

    assert app[INCARNATION].epoch == 0


async def test_an_account_without_rights_may_look(app, database, rows):
    """What tells the lives apart is no secret of the superuser's."""
    rows("DROP ROLE IF EXISTS looker")
    rows("CREATE ROLE looker")
    rows("GRANT SELECT ON stacks, series TO looker")
    try:
        with database.connect() as connection:
            connection.execute(text("SET ROLE looker"))
            assert connection.execute(
                text("SELECT system_identifier FROM pg_control_system()")
            ).scalar()
            assert connection.execute(
                text("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
            ).scalar()
    finally:
        rows("REVOKE ALL ON stacks, series FROM looker")
        rows("DROP ROLE looker")


class Server:
    """What a driver answers to the look: the identity, the log's place, and the rows."""

    def __init__(self, *answers):
        self.answers = list(answers)

    async def execute(self, query, ids):
        return self

    async def fetchone(self):
        return self.answers.pop(0)


def answer(identity=("cluster", "start", "1", 5, 1, 2, 3), lsn=100, stack=None, series=None):
    return (*identity, lsn, stack, series)


@pytest.mark.parametrize(
    "later",
    [
        answer(("other", "start", "1", 5, 1, 2, 3)),
        answer(("cluster", "later", "1", 5, 1, 2, 3)),
        answer(("cluster", "start", "2", 5, 1, 2, 3)),  # a timeline
        answer(("cluster", "start", "1", 6, 1, 2, 3)),
        answer(("cluster", "start", "1", 5, 9, 2, 3)),  # a table's file
        answer(lsn=99),
        answer(stack=b"other"),
        answer(stack=None),
        answer(series=b"other", stack=b"hash"),
    ],
)
async def test_each_way_of_going_back_ends_a_life(app, later):
    incarnation, forgotten = app[INCARNATION], []
    incarnation.on_end(lambda: forgotten.append(True))
    server = Server(answer(), later)
    await incarnation.look(server)
    incarnation.saw_stack(7, b"hash")
    incarnation.saw_stack(6, b"another")
    incarnation.saw_series(3, b"key")

    with pytest.raises(RestoredError):
        await incarnation.check(server, 0)

    assert (incarnation.epoch, forgotten) == (1, [True])
