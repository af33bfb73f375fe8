"""Alerts about what ingest noted of a node: a clone, a wrong clock."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email.utils import formatdate
from uuid import UUID, uuid4

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
    assert "2 hosts send as web-1" in start["commonAnnotations"]["summary"]


async def test_machines_with_one_name_and_token_and_runs_of_their_own_are_told_and_counted(
    client, node, stack_of, judge_all, deliver, receiver, rows
):
    machines = [replace(node, run=uuid4().bytes) for _ in range(3)]

    async def send_by_turns(count):
        for _ in range(count):
            for machine in machines:
                await machine.send(machine.batch({stack_of(1): 1}))

    async def told():
        async with client.get("/api/v1/nodes") as response:
            [one] = (await response.json())["nodes"]
        return one["machines"]

    await send_by_turns(1)
    assert (judge_all(), await told()) == (0, 1)  # three starts, one after the other
    await send_by_turns(2)
    assert (judge_all(), await told()) == (1, 3)
    assert rows("SELECT rule, value FROM alerts") == [("cloned_node", 2)]
    assert await deliver() == Sent(delivered=1)
    start = json.loads(receiver.requests[0][1])
    assert "3 hosts send as web-1" in start["commonAnnotations"]["summary"]

    # WHEN one alone goes on THEN it is over, once the others were silent for the window
    rows(
        "UPDATE runs SET last_batch_at = last_batch_at - interval '10 minutes',"
        " started_at = started_at - interval '10 minutes' WHERE run <> :run",
        run=UUID(bytes=machines[0].run),
    )
    await machines[0].send(machines[0].batch({stack_of(1): 1}))
    assert (judge_all(), await told()) == (1, 1)
    assert rows("SELECT state FROM alerts") == [("resolved",)]


async def test_a_sampler_that_starts_again_and_again_is_no_clone(node, stack_of, judge_all, rows):
    for _ in range(4):
        machine = replace(node, run=uuid4().bytes)
        batches = [machine.batch({stack_of(1): 1}) for _ in range(3)]
        for batch in batches:
            await machine.send(batch)
        assert (await machine.send(batches[-1])).status == "duplicate"
    assert judge_all() == 0


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
    assert (await send(3600, ahead_ns), judge_all()) == (503, 1)
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
