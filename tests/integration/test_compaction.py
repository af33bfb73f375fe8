"""Minutes rolled up on a real Postgres: who asks sees no change, whatever happens meanwhile."""

import threading
import time
from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import text

from aggregator.db import create_sync_database
from aggregator.errors import DatabaseError
from aggregator.profiles.codec import decode_sections
from aggregator.profiles.compaction import compact

MARKED = "SELECT count(*) FROM dirty_bucket"
ROLLED_UP = "SELECT count(*) FROM node_prof WHERE tier_s = 60"


def minute_start(minutes_ago=5):
    return int(time.time() // 60 * 60) - 60 * minutes_ago


@pytest.fixture
def ask(client):
    """The columnar answer for the last 15 minutes."""

    async def ask_centre(**parameters):
        async with client.get("/api/v1/flamegraph", params=parameters) as response:
            assert response.status == 200, await response.text()
            answer = await response.json()
        del answer["effective_from"], answer["effective_until"]  # they go on with the clock
        return answer

    return ask_centre


async def send_minute(node, start_s, stacks, labels=None, **changes):
    """Six batches of 10 s whose counts differ by stack and batch."""
    for step in range(6):
        samples = {stack: 1 + step + 7 * n for n, stack in enumerate(stacks)}
        start_ns = (start_s + 10 * step) * 10**9
        await node.send(node.batch(samples, labels, start_ns=start_ns, **changes))


async def test_the_flamegraph_is_the_same_before_and_after(ask, new_node, stack_of, database, rows):
    stacks = [stack_of(n) for n in range(5)]
    web, db = new_node("web-1"), new_node("db-1")
    start_s = minute_start()
    await send_minute(web, start_s, stacks, {"service": "nginx"}, lost={"ring_full": 2})
    await send_minute(web, start_s + 60, stacks[:2], {"service": "cron"}, rate_millihertz=99_000)
    await send_minute(db, start_s, stacks[1:], {"service": "nginx"}, rate_millihertz=49_000)
    db.run = b"\7" * 16  # the sampler starts again at another rate, in the same minute
    db.sequence = 0
    await db.send(db.batch({stacks[0]: 3}, start_ns=(start_s + 55) * 10**9, rate_millihertz=7_000))
    await web.define(stacks)
    queries = ({}, {"query": '{service="nginx"}'}, {"query": '{host="db-1"}'})
    before = [await ask(**query) for query in queries]
    assert before[0]["total_ns"] > 0

    assert compact(database) == 3

    assert rows(MARKED) == [(0,)]
    assert rows(ROLLED_UP) == [(3,)]
    assert [await ask(**query) for query in queries] == before
    sums = "SELECT sum(samples), sum(lost), sum(covered_ms), sum(weight_ns) FROM node_prof"
    assert rows(f"{sums} WHERE tier_s = 60") == rows(f"{sums} WHERE tier_s = 10")

    # Once the 10-second rows are dropped, the minutes alone give the same.
    rows("DELETE FROM node_prof WHERE tier_s = 10")
    assert [await ask(**query) for query in queries] == before
    assert compact(database) == 0


async def test_a_late_batch_counts_at_once_and_is_rolled_up_again(
    ask, node, stack_of, database, rows
):
    start_s = minute_start()
    await send_minute(node, start_s, [stack_of(1)])
    assert compact(database) == 1
    [(first,)] = rows("SELECT samples FROM node_prof WHERE tier_s = 60")

    await node.send(node.batch({stack_of(2): 100}, start_ns=(start_s + 30) * 10**9))
    late = await ask()
    assert late["coverage"]["samples"] == first + 100

    assert compact(database) == 1
    assert rows("SELECT samples FROM node_prof WHERE tier_s = 60") == [(first + 100,)]
    assert await ask() == late


async def test_minutes_that_have_not_settled_are_left(node, stack_of, database, rows):
    start_s = minute_start()
    await send_minute(node, start_s, [stack_of(1)])
    end = datetime.fromtimestamp(start_s + 60, timezone.utc)
    assert compact(database, end + timedelta(seconds=29)) == 0
    assert rows(ROLLED_UP) == [(0,)]
    assert compact(database, end + timedelta(seconds=30)) == 1


async def test_work_of_one_call_is_bounded(new_node, stack_of, database, rows):
    start_s = minute_start(10)
    node = new_node("web-1")
    for minute in range(5):
        start_ns = (start_s + 60 * minute) * 10**9
        await node.send(node.batch({stack_of(1): 1}, start_ns=start_ns))
    assert compact(database, most=2) == 2
    assert rows(ROLLED_UP) == [(2,)]
    assert [compact(database, most=2) for _ in range(3)] == [2, 1, 0]


async def test_a_batch_that_is_being_stored_keeps_its_minute_from_being_rolled_up(
    ask, new_node, stack_of, database, rows
):
    start_s = minute_start()
    for name in ("web-1", "web-2"):
        await send_minute(new_node(name), start_s, [stack_of(1)])
    before = await ask()
    with database.connect() as ingest:
        ingest.execute(
            text(
                "INSERT INTO dirty_bucket SELECT tier_s, bucket, node_id FROM dirty_bucket "
                "ORDER BY node_id LIMIT 1 ON CONFLICT (tier_s, bucket, node_id) "
                "DO UPDATE SET tier_s = excluded.tier_s"
            )
        )
        assert compact(database) == 1
        assert rows(MARKED) == [(1,)]
        assert await ask() == before
        ingest.rollback()
    assert compact(database) == 1
    assert await ask() == before


async def test_a_worker_killed_in_the_middle_changes_nothing(
    ask, new_node, stack_of, database, rows, postgres_url
):
    start_s = minute_start()
    for name in ("web-1", "web-2"):
        await send_minute(new_node(name), start_s, [stack_of(1), stack_of(2)])
    before = await ask()
    worker = create_sync_database(postgres_url)
    failures = []

    def work():
        try:
            compact(worker)
        except DatabaseError as error:
            failures.append(error)

    with database.connect() as holder:
        # Whoever writes the minute has to wait for this lock, with the marks already taken.
        holder.execute(text("LOCK TABLE node_prof_60 IN SHARE MODE"))
        thread = threading.Thread(target=work)
        thread.start()
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
            "AND query LIKE 'INSERT INTO node_prof%'"
        )
        deadline = time.monotonic() + 300
        while rows(waiting) != [(1,)]:
            assert time.monotonic() < deadline, "the worker never came to its write"
            time.sleep(0.02)
        rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT INTO node_prof%'"
        )
        thread.join()
    worker.dispose()
    assert len(failures) == 1
    assert rows(ROLLED_UP) == [(0,)]
    assert rows(MARKED) == [(2,)]
    assert await ask() == before
    assert compact(database) == 2
    assert await ask() == before


async def test_several_workers_at_once_roll_every_minute_up_once(
    ask, new_node, stack_of, database, rows, postgres_url
):
    start_s = minute_start(60)
    for name in ("web-1", "web-2", "web-3"):
        node = new_node(name)
        for minute in range(50):
            start_ns = (start_s + 60 * minute) * 10**9
            await node.send(node.batch({stack_of(minute): 3}, start_ns=start_ns))
    before = await ask(**{"from": "now-2h"})
    engines = [create_sync_database(postgres_url) for _ in range(3)]
    done = []
    threads = [
        threading.Thread(target=lambda engine=engine: done.append(compact(engine)))
        for engine in engines
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for engine in engines:
        engine.dispose()
    assert sum(done) == 150
    assert rows(ROLLED_UP) == [(150,)]
    assert rows(MARKED) == [(0,)]
    assert await ask(**{"from": "now-2h"}) == before


async def test_a_damaged_row_is_counted_as_lost_and_does_not_hold_up_the_rest(
    ask, new_node, stack_of, database, rows
):
    start_s = minute_start()
    node = new_node("web-1")
    await node.send(node.batch({stack_of(1): 38}, start_ns=start_s * 10**9))
    await node.send(node.batch({stack_of(1): 19}, start_ns=(start_s + 10) * 10**9))
    rows("UPDATE node_prof SET data = substr(data, 1, 9) WHERE samples = 38")
    assert compact(database) == 1
    [(samples, lost, covered_ms, weight_ns, data)] = rows(
        "SELECT samples, lost, covered_ms, weight_ns, data FROM node_prof WHERE tier_s = 60"
    )
    assert (samples, lost, covered_ms, weight_ns) == (19, 38, 20_000, 10**9)
    assert [section.counts.tolist() for section in decode_sections(data)] == [[19]]
    assert (await ask())["coverage"]["lost_samples"] == 38


async def test_a_mark_without_rows_leaves_the_minute_as_it_is(node, stack_of, database, rows):
    await send_minute(node, minute_start(), [stack_of(1)])
    assert compact(database) == 1
    before = rows("SELECT samples, data FROM node_prof WHERE tier_s = 60")
    rows("INSERT INTO dirty_bucket SELECT 60, bucket, node_id FROM node_prof WHERE tier_s = 60")
    rows("DELETE FROM node_prof WHERE tier_s = 10")
    assert compact(database) == 1
    assert rows("SELECT samples, data FROM node_prof WHERE tier_s = 60") == before
    assert rows(MARKED) == [(0,)]
