"""Group commit on a real Postgres: shared commits, bad batches alone, and servers that go away."""

import asyncio

import pytest
from aiohttp.test_utils import TestClient, TestServer
from sqlalchemy import text

from aggregator.access.service import create_token
from aggregator.app import create_app
from aggregator.app_keys import INGEST
from aggregator.config import CentreConfig
from aggregator.db import create_sync_database, run_migrations, session_scope
from aggregator.ingest import group


async def metric(client, name):
    body = await (await client.get("/metrics")).text()
    return next(float(line.split()[-1]) for line in body.splitlines() if line.startswith(name))


async def under_way(rows):
    """Wait until a commit waits for the lock that the test holds."""
    waiting = (
        "SELECT count(*)::int FROM pg_locks WHERE NOT granted "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    while rows(waiting) == [(0,)]:
        await asyncio.sleep(0.01)


async def queued(client, number):
    """Wait until `number` batches wait for a commit."""
    while await metric(client, "flamefleet_queued_batches ") != number:
        await asyncio.sleep(0.01)


async def test_batches_that_wait_share_a_commit(new_node, stack_of, database, client, rows):
    nodes = [new_node(f"web-{i}") for i in range(20)]
    batches = [node.batch({stack_of(i): 1}) for i, node in enumerate(nodes)]
    await nodes[0].send(batches[0])
    with database.connect() as connection:
        connection.execute(text("LOCK TABLE node_prof IN EXCLUSIVE MODE"))
        sending = [asyncio.create_task(nodes[1].send(batches[1]))]
        await under_way(rows)
        sending += [
            asyncio.create_task(n.send(b)) for n, b in zip(nodes[2:], batches[2:], strict=True)
        ]
        await queued(client, 18)
        assert not any(task.done() for task in sending)
        connection.rollback()

    assert {answer.status for answer in await asyncio.gather(*sending)} == {"stored"}
    assert rows("SELECT count(*)::int FROM node_prof") == [(20,)]
    assert await metric(client, "flamefleet_commit_batches_count") == 3
    assert len(rows("SELECT DISTINCT xmin::text FROM runs")) == 3


async def test_a_batch_that_the_database_refuses_harms_no_other(
    new_node, stack_of, database, client, rows, error_of
):
    rows("ALTER TABLE node_prof ADD CONSTRAINT unlucky CHECK (samples <> 13)")
    nodes = [new_node(f"web-{i}") for i in range(10)]
    with database.connect() as connection:
        connection.execute(text("LOCK TABLE node_prof IN EXCLUSIVE MODE"))
        first = asyncio.create_task(nodes[0].send(nodes[0].batch({stack_of(0): 1})))
        await under_way(rows)
        good = [asyncio.create_task(node.send(node.batch({stack_of(1): 1}))) for node in nodes[1:9]]
        bad = asyncio.create_task(
            error_of(nodes[9].post("/api/v1/batches", nodes[9].batch({stack_of(2): 13})))
        )
        await queued(client, 9)
        connection.rollback()

    assert {(await answer).status for answer in (first, *good)} == {"stored"}
    assert await bad == (422, "unstorable")
    assert rows("SELECT count(*)::int, sum(samples)::int FROM node_prof") == [(9, 9)]
    assert rows("SELECT count(*)::int FROM runs") == [(9,)]


async def test_client_that_goes_away_finds_its_batch_stored(node, stack_of, database, client, rows):
    batch = node.batch({stack_of(1): 5})
    with database.connect() as connection:
        connection.execute(text("LOCK TABLE node_prof IN EXCLUSIVE MODE"))
        sending = asyncio.create_task(node.send(batch))
        await under_way(rows)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        connection.rollback()

    assert (await node.send(batch)).status in ("stored", "duplicate")
    assert rows("SELECT sum(samples)::int FROM node_prof") == [(5,)]


@pytest.mark.parametrize("limit", ["MAX_QUEUED", "MAX_QUEUED_ROWS"])
async def test_full_queue_is_a_503(new_node, stack_of, database, client, monkeypatch, rows, limit):
    monkeypatch.setattr(group, limit, 2)
    nodes = [new_node(f"web-{i}") for i in range(4)]
    with database.connect() as connection:
        connection.execute(text("LOCK TABLE node_prof IN EXCLUSIVE MODE"))
        sending = [asyncio.create_task(nodes[0].post_batch({stack_of(1): 1}))]
        await under_way(rows)
        sending += [asyncio.create_task(node.post_batch({stack_of(1): 1})) for node in nodes[1:3]]
        await queued(client, 2)

        batch = nodes[3].batch({stack_of(1): 1})
        async with await nodes[3].post("/api/v1/batches", batch) as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "5")
            assert (await response.json())["error"]["code"] == "busy"
        connection.rollback()

    assert await asyncio.gather(*sending) == [200, 200, 200]
    assert (await nodes[3].send(batch)).status == "stored"
    assert rows("SELECT count(*)::int FROM node_prof") == [(4,)]


@pytest.mark.parametrize(("limit", "commits"), [("MAX_GROUP", 4), ("MAX_GROUP_ROWS", 4)])
async def test_groups_are_bounded(
    new_node, stack_of, database, client, monkeypatch, rows, limit, commits
):
    monkeypatch.setattr(group, limit, 2)
    nodes = [new_node(f"web-{i}") for i in range(7)]
    with database.connect() as connection:
        connection.execute(text("LOCK TABLE node_prof IN EXCLUSIVE MODE"))
        sending = [asyncio.create_task(nodes[0].post_batch({stack_of(1): 1}))]
        await under_way(rows)
        sending += [asyncio.create_task(node.post_batch({stack_of(1): 1})) for node in nodes[1:]]
        await queued(client, 6)
        connection.rollback()

    assert set(await asyncio.gather(*sending)) == {200}
    assert await metric(client, "flamefleet_commit_batches_count") == commits


@pytest.mark.parametrize("limit", ["SLOW_ROWS", "SLOW_STACKS"])
async def test_a_slow_batch_holds_up_no_other(
    new_node, stack_of, database, client, monkeypatch, limit
):
    monkeypatch.setattr(group, limit, 2)
    large, small = new_node("web-1"), new_node("web-2")
    await large.send(large.batch({stack_of(1): 1}))
    with database.connect() as connection:
        connection.execute(text("SELECT id FROM runs FOR UPDATE"))
        batch = large.batch({stack_of(n): 1 for n in range(5)})
        sending = asyncio.create_task(large.send(batch))
        for number in range(3):
            assert (await small.send(small.batch({stack_of(number): 1}))).status == "stored"
        assert not sending.done()
        connection.rollback()

    assert (await sending).status == "stored"


async def test_a_node_has_a_share_of_the_queue_only(
    new_node, stack_of, database, client, monkeypatch, rows
):
    monkeypatch.setattr(group, "MAX_QUEUED_OF_NODE", 3)
    greedy, honest = new_node("web-1"), new_node("web-2")
    with database.connect() as connection:
        connection.execute(text("LOCK TABLE node_prof IN EXCLUSIVE MODE"))
        first = asyncio.create_task(greedy.post_batch({stack_of(1): 1}))
        await under_way(rows)
        many = [asyncio.create_task(greedy.post_batch({stack_of(1): 1})) for _ in range(10)]
        await queued(client, 3)
        one = asyncio.create_task(honest.post_batch({stack_of(1): 1}))
        await queued(client, 4)
        connection.rollback()

    statuses = await asyncio.gather(*many)
    assert (statuses.count(503), statuses.count(200)) == (7, 3)
    assert (await one, await first) == (200, 200)


async def test_shutting_down_answers_those_who_wait(
    app, new_node, stack_of, database, client, rows
):
    nodes = [new_node(f"web-{i}") for i in range(4)]
    with database.connect() as connection:
        connection.execute(text("LOCK TABLE node_prof IN EXCLUSIVE MODE"))
        sending = [asyncio.create_task(nodes[0].post_batch({stack_of(1): 1}))]
        await under_way(rows)
        sending += [asyncio.create_task(node.post_batch({stack_of(1): 1})) for node in nodes[1:]]
        await queued(client, 3)

        app[INGEST].close()

        assert await asyncio.gather(*sending[1:]) == [503, 503, 503]
        assert await nodes[1].post_batch({stack_of(1): 1}) == 503
        connection.rollback()
    assert await sending[0] == 200


async def test_killed_postgres_loses_no_batch_and_counts_none_twice(
    own_postgres, valkey_url, node, stack_of
):
    await asyncio.to_thread(run_migrations, own_postgres.url)
    engine = create_sync_database(own_postgres.url)
    with session_scope(engine) as session:
        node.token = create_token(session, node.name)
    node.sequence, sent, statuses = 0, 0, set()

    async with TestClient(TestServer(create_app(CentreConfig(own_postgres.url, valkey_url)))) as c:
        node.client = c

        async def send_until_accepted(batch):
            while True:
                async with await node.post("/api/v1/batches", batch) as response:
                    statuses.add(response.status)
                    if response.status == 200:
                        return
                    assert response.status == 503, await response.text()
                await asyncio.sleep(0.05)

        async def send_many():
            nonlocal sent
            while sent < 60 or 503 not in statuses:
                await send_until_accepted(node.batch({stack_of(sent % 7): 1 + sent}))
                sent += 1

        sending = asyncio.create_task(send_many())

        async def until(holds):
            while not holds():
                if sending.done():
                    sending.result()  # why it ended
                await asyncio.sleep(0.01)

        await until(lambda: sent >= 20)
        await asyncio.to_thread(own_postgres.kill)
        await until(lambda: 503 in statuses)
        async with c.get("/healthz") as response:
            assert response.status == 200
        async with c.get("/readyz") as response:
            assert response.status == 503
        await asyncio.to_thread(own_postgres.start)
        await sending
        async with c.get("/readyz") as response:
            assert response.status == 200

    with engine.connect() as connection:
        total = connection.execute(text("SELECT count(*), sum(samples) FROM node_prof")).one()
        assert tuple(total) == (sent, sum(range(1, sent + 1)))
        lost = connection.execute(text("SELECT high_water, lost_batches FROM runs")).one()
        assert tuple(lost) == (sent, 0)
    engine.dispose()
