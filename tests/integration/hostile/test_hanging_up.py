"""Readers that hang up, and what hangs behind the aggregator: neither holds anybody up."""

import asyncio
import gc
import socket
import threading
from collections.abc import Iterator

import pytest
from aiohttp.test_utils import TestClient, TestServer
from sqlalchemy import text

from aggregator import bounds, health
from aggregator.app import create_app
from aggregator.app_keys import METRICS
from aggregator.bounds import PROFILE_GATE, Gate
from aggregator.config import CentreConfig
from aggregator.workers import GivenUpError, OverloadedError, Workers, checkpoint

# A cancellation that Postgres does not answer within 5 s, on a busy machine, ends the connection;
# psycopg's generator then complains when it is collected.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:Exception ignored in. <generator object BaseCursor._execute_gen"
)
LIMIT_S = 120
SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
ASK = b"GET /api/v1/timeline HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What a test leaves is collected before the next one."""
    yield
    gc.collect()


@pytest.fixture
def slow_timelines(app, monkeypatch):
    """Every timeline takes the database ten minutes."""

    async def sleep(connection, *_):
        await connection.execute(text("SELECT pg_sleep(600)"))

    monkeypatch.setattr("aggregator.fleet.views.read_timeline", sleep)


@pytest.mark.usefixtures("slow_timelines")
async def test_a_reader_that_hangs_up_ends_its_statement(app, serve, connect, rows, wait_for):
    port = await serve()
    _, writer = await connect(port)
    writer.write(ASK)
    await wait_for(lambda: rows(SLEEPING) == [(1,)], "the statement runs")

    writer.close()

    await wait_for(lambda: rows(SLEEPING) == [(0,)], "the statement has ended")
    assert app[METRICS].registry.get_sample_value("flamefleet_given_up_total") == 1


@pytest.mark.usefixtures("slow_timelines")
async def test_sixty_readers_that_hung_up_leave_room_for_the_next(
    app, serve, connect, rows, wait_for, monkeypatch
):
    port = await serve()
    writers = []
    for _ in range(60):
        _, writer = await connect(port)
        writer.write(ASK)
        writers.append(writer)
    await wait_for(lambda: rows(SLEEPING) == [(bounds.QUESTIONS_AT_ONCE,)], "three are asked")

    for writer in writers:
        writer.close()

    await wait_for(lambda: rows(SLEEPING) == [(0,)], "all statements have ended")
    reader, writer = await connect(port)
    writer.write(ASK.replace(b"timeline", b"flamegraph"))
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LIMIT_S)
    assert head.split()[1] == b"200"


@pytest.mark.usefixtures("slow_timelines")
async def test_a_question_has_a_time(client, rows, wait_for, monkeypatch):
    monkeypatch.setattr(bounds, "QUESTION_S", 0.5)

    async with client.get("/api/v1/timeline") as response:
        error = (await response.json())["error"]

    assert (response.status, error["code"]) == (504, "took_too_long")
    assert "shorter time" in error["remedy"]
    await wait_for(lambda: rows(SLEEPING) == [(0,)], "the statement has ended")


@pytest.mark.usefixtures("slow_timelines")
async def test_a_question_that_waits_too_long_or_behind_too_many_comes_again(
    app, client, rows, wait_for, monkeypatch
):
    monkeypatch.setattr(bounds, "WAIT_S", 0.5)
    asked = [asyncio.create_task(client.get("/api/v1/timeline")) for _ in range(3)]
    await wait_for(lambda: rows(SLEEPING) == [(3,)], "three are asked")

    async with client.get("/api/v1/timeline") as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "5")
        assert (await response.json())["error"]["code"] == "overloaded"
    # Lists have a gate of their own, and so have those who send.
    async with client.get("/api/v1/nodes") as response:
        assert response.status == 200
    monkeypatch.setitem(app._state, PROFILE_GATE, Gate(0, 0))
    async with client.get("/api/v1/timeline") as response:
        assert response.status == 503
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)


@pytest.mark.usefixtures("slow_timelines")
async def test_questions_take_no_connection_from_nodes(client, node, rows, wait_for, stack_of):
    asked = [asyncio.create_task(client.get("/api/v1/timeline")) for _ in range(40)]
    await wait_for(lambda: rows(SLEEPING) == [(3,)], "three are asked")

    for number in range(3):
        assert (await node.send(node.batch({stack_of(number): 1}))).status == "stored"

    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)


async def test_a_broker_that_hangs_holds_up_nothing(centre_config, wait_for, monkeypatch):
    """Whoever asks for readiness shares one check; that takes no thread that others need."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        app = create_app(CentreConfig(centre_config.database_url, url))
        asked = []
        pings = []
        ping = health._ping_broker
        monkeypatch.setattr(health, "_ping_broker", lambda url: pings.append(1) or ping(url))
        async with TestClient(TestServer(app)) as client:
            asked = [asyncio.create_task(client.get("/readyz")) for _ in range(40)]
            await wait_for(lambda: pings, "the broker is asked")
            assert await asyncio.wait_for(asyncio.to_thread(lambda: True), LIMIT_S)
            answers = await asyncio.gather(*asked)
            assert {answer.status for answer in answers} == {503}
            checks = (await answers[0].json())["checks"]
            assert checks["database"] == {"ok": True}
            assert not checks["broker"]["ok"]
    assert len(pings) <= 2


async def test_work_that_waits_is_dropped_and_work_that_runs_ends_at_a_checkpoint(wait_for):
    workers = Workers("test", 1, most_waiting=1)
    started, go_on = threading.Event(), threading.Event()
    ended, ran = [], []

    def long():
        started.set()
        go_on.wait(LIMIT_S)
        try:
            checkpoint()
        except GivenUpError:
            ended.append("given up")
            raise
        ended.append("finished")

    running = asyncio.create_task(workers.run(long))
    await wait_for(started.is_set, "it runs")
    waiting = asyncio.create_task(workers.run(ran.append, 1))
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await workers.run(ran.append, 2)

    for task in (running, waiting):
        task.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)
    go_on.set()

    await wait_for(lambda: ended == ["given up"], "it ends at its checkpoint")
    assert await workers.run(lambda: 3) == 3
    assert ran == []
    await workers.close()
