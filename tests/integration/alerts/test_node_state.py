"""Alerts about what ingest noted of a node: a clone, a wrong clock."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

from aggregator.alerts.deliveries import Sent

SECOND_NS = 10**9


async def test_a_cloned_node_is_told_once_and_once_that_it_is_over(
    node, stack_of, judge_all, deliver, receiver, rows
):
    await node.send(node.batch({stack_of(1): 1}))
    assert judge_all() == 0

    async def send_as_a_clone():
        clone = node.batch({stack_of(2): 9}, sequence=node.sequence)
        async with await node.post("/api/v1/batches", clone) as response:
            assert response.status == 409

    def ten_minutes_later():
        rows("UPDATE nodes SET clone_refused_at = clone_refused_at - interval '10 minutes'")

    await send_as_a_clone()
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda _: judge_all(), range(4))) == 1
    assert await deliver() == Sent(delivered=1)
    ten_minutes_later()
    await send_as_a_clone()  # it goes on, and so does the alert
    await node.send(node.batch({stack_of(1): 1}))
    assert judge_all() == 0
    ten_minutes_later()
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda _: judge_all(), range(4))) == 1
    assert await deliver() == Sent(delivered=1)
    assert (judge_all(), await deliver()) == (0, Sent())

    assert receiver.events() == ["firing", "resolved"]
    receiver.check_signatures()
    assert rows("SELECT rule, state FROM alerts") == [("cloned_node", "resolved")]
    assert rows("SELECT sum(samples)::int FROM node_prof") == [(2,)]
    start = json.loads(receiver.requests[0][1])
    assert "two hosts send as web-1" in start["commonAnnotations"]["summary"]


async def test_a_clone_that_lags_behind_is_told_too(node, stack_of, judge_all, rows):
    batches = [node.batch({stack_of(1): 1}) for _ in range(5)]
    for batch in batches:
        await node.send(batch)
    assert (await node.send(batches[1])).status == "duplicate"  # it was only sent again
    assert judge_all() == 0

    clone = node.batch({stack_of(2): 9}, sequence=batches[1].sequence)
    async with await node.post("/api/v1/batches", clone) as response:
        assert response.status == 409
    assert judge_all() == 1
    assert rows("SELECT rule, state FROM alerts") == [("cloned_node", "firing")]
    assert rows("SELECT sum(samples)::int FROM node_prof") == [(5,)]


async def test_a_wrong_clock_is_told_until_it_is_right(
    node, stack_of, judge_all, deliver, receiver, rows
):
    async def send(ahead_s: float, start_ns: int | None = None) -> int:
        changes = {} if start_ns is None else {"start_ns": start_ns}
        headers = {"Date": formatdate(time.time() + ahead_s, usegmt=True)}
        batch = node.batch({stack_of(1): 1}, **changes)
        async with await node.post("/api/v1/batches", batch, **headers) as response:
            return response.status

    assert (await send(0), judge_all()) == (200, 0)
    assert (await send(-3600), judge_all()) == (200, 1)
    assert (await send(-3600), judge_all()) == (200, 0)
    rows("UPDATE nodes SET clock_offset_ms = 7000")
    assert judge_all() == 0
    rows("UPDATE nodes SET clock_offset_ms = -4000")
    assert judge_all() == 1
    assert await deliver() == Sent(delivered=2)
    assert sorted(receiver.events()) == ["firing", "resolved"]
    # So wrong that no batch of the node is taken: its clock is known all the same.
    ahead_ns = time.time_ns() + 3600 * SECOND_NS
    assert (await send(3600, ahead_ns), judge_all()) == (422, 1)
    [(state, value, threshold)] = rows(
        "SELECT state, value, threshold FROM alerts WHERE rule = 'clock_offset' ORDER BY id DESC "
        "LIMIT 1"
    )
    assert (state, threshold) == ("firing", 10)
    assert -3610 < value < -3000


async def test_the_clock_of_a_silent_node_fires_no_more(
    node, stack_of, judge_all, deliver, receiver, rows
):
    rows("UPDATE nodes SET clock_offset_ms = 90000, clock_read_at = now() - interval '2 hours'")
    assert judge_all() == 0
    rows("UPDATE nodes SET clock_read_at = now() - interval '50 minutes'")
    assert judge_all() == 1
    rows("UPDATE nodes SET clock_read_at = now() - interval '61 minutes'")
    assert (judge_all(), judge_all()) == (1, 0)
    assert await deliver() == Sent(delivered=2)
    [last] = [json.loads(body) for _, body in receiver.requests if b'"resolved"' in body]
    assert "its clock is unknown" in last["commonAnnotations"]["summary"]

    # It is back, and its clock is as wrong as before.
    headers = {"Date": formatdate(time.time() - 90, usegmt=True)}
    async with await node.post(
        "/api/v1/batches", node.batch({stack_of(1): 1}), **headers
    ) as response:
        assert response.status == 200
    assert judge_all() == 1
    assert rows("SELECT count(*) FROM alerts WHERE state = 'firing'") == [(1,)]


async def test_a_clock_that_a_release_before_noted_is_as_old_as_the_node_was_seen(
    node, stack_of, judge_all, rows
):
    await node.send(node.batch({stack_of(1): 1}))
    rows("UPDATE nodes SET clock_offset_ms = 90000, clock_read_at = NULL")
    assert judge_all() == 1
    rows("UPDATE nodes SET last_seen_at = now() - interval '2 hours'")
    assert judge_all() == 1
    assert rows("SELECT state FROM alerts") == [("resolved",)]
