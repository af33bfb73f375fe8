"""How stacks ended: from the batch to the flamegraph's coverage, the services and the metrics."""

import time

import numpy as np
import pytest

from aggregator.profiles.compaction import compact
from wire.schema import Series

APP = [{"service": "app"}, {"service": "app", "region": "fra"}, {"service": "db"}]


def u32(*values):
    return np.array(values, "<u4").tobytes()


def minute_start(minutes_ago=5):
    return int(time.time() // 60 * 60) - 60 * minutes_ago


@pytest.fixture
def get(client):
    """The JSON answer of a path that must be 200."""

    async def get_json(path, **parameters):
        async with client.get(path, params=parameters) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    return get_json


@pytest.fixture
def batch_of(stack_of):
    """A batch of three series with 100, 50 and 40 samples, and how their stacks ended."""

    def make(node, ends, start_s, python_ends=None, **changes):
        return node.batch(
            {stack_of(n): count for n, count in enumerate((100, 50, 40))},
            series=[Series(labels) for labels in APP],
            series_index=u32(0, 1, 2),
            stack_ends={reason: u32(*counts) for reason, counts in ends.items()},
            python_ends={reason: u32(*counts) for reason, counts in (python_ends or {}).items()},
            start_ns=start_s * 10**9,
            **changes,
        )

    return make


async def test_coverage_over_hosts_labels_and_time(get, new_node, batch_of):
    web, cache = new_node("web-1"), new_node("cache-1")
    start_s = minute_start(3)
    first = {"complete": (90, 40, 0), "no_rows": (5, 0, 40), "read_fault": (1, 0, 0)}
    await web.send(batch_of(web, first, start_s))
    await web.send(batch_of(web, {"complete": (100, 50, 0)}, start_s + 60))
    await cache.send(batch_of(cache, {"truncated": (0, 7, 0)}, start_s, rate_millihertz=99_000))

    async def coverage(**parameters):
        found = (await get("/api/v1/flamegraph", **parameters))["coverage"]
        return found["stack_ends"], found["complete_share"]

    everything = {"complete": 280, "no_rows": 45, "read_fault": 1, "truncated": 7}
    assert await coverage() == (everything, round(280 / 333, 6))
    assert await coverage(query='{service="db"}') == ({"no_rows": 40}, 0)
    assert await coverage(query='{region="fra"}') == (
        {"complete": 90, "truncated": 7},
        round(90 / 97, 6),
    )
    assert await coverage(query='{host="cache-1"}') == ({"truncated": 7}, 0)
    later = {"from": str(start_s + 60), "until": str(start_s + 120)}
    assert await coverage(**later) == ({"complete": 150}, 1)
    assert await coverage(query='{service="nosuch"}') == ({}, None)


async def test_shares_by_service(get, new_node, batch_of):
    web, cache = new_node("web-1"), new_node("cache-1")
    start_s = minute_start(3)
    ends, python_ends = {"complete": (90, 40, 0), "no_rows": (5, 0, 40)}, {"complete": (60, 0, 0)}
    for node in (web, cache):
        await node.send(batch_of(node, ends, start_s, python_ends))
        python_ends = {"complete": (50, 0, 0), "off": (0, 7, 0)}
    answer = await get("/api/v1/stack_ends", **{"from": str(start_s), "until": str(start_s + 10)})
    assert answer.pop("services") == [
        {
            "service": "app",
            "samples": 270,
            "complete_share": round(260 / 270, 6),
            "stack_ends": {"complete": 260, "no_rows": 10},
            "python_ends": {"complete": 110, "off": 7},
            "python_complete_share": round(110 / 117, 6),
        },
        {
            "service": "db",
            "samples": 80,
            "complete_share": 0,
            "stack_ends": {"no_rows": 80},
            "python_ends": {},
            "python_complete_share": None,
        },
    ]
    assert answer["python_ends"] == {"complete": 110, "off": 7}
    assert (answer["samples"], answer["stack_ends"]) == (350, {"complete": 260, "no_rows": 90})
    assert answer["complete_share"] == round(260 / 350, 6)
    assert answer["effective_until"] == time.strftime(
        "%Y-%m-%dT%H:%M:%SZ", time.gmtime(start_s + 10)
    )
    answer = await get("/api/v1/stack_ends", query='{service="db", host="web-1"}')
    assert [one["service"] for one in answer["services"]] == ["db"]
    assert answer["samples"] == 40
    answer = await get("/api/v1/stack_ends", query='{service="nosuch"}')
    assert (answer["services"], answer["complete_share"]) == ([], None)


async def test_a_minute_keeps_them_and_they_go_with_their_rows(
    get, new_node, batch_of, database, rows
):
    node = new_node("web-1")
    start_s = minute_start()
    for step in range(6):
        ends = {"complete": (90 + step, 50, step), "no_room": (step, 0, 1)}
        python_ends = {"complete": (80, step, 0), "truncated": (0, 0, 1)}
        await node.send(batch_of(node, ends, start_s + 10 * step, python_ends))

    async def ends():
        coverage = (await get("/api/v1/flamegraph"))["coverage"]
        services = (await get("/api/v1/stack_ends"))["services"]
        python = coverage["python_ends"], coverage["python_complete_share"]
        return coverage["stack_ends"], coverage["complete_share"], services, python

    before = await ends()
    assert before[0] == {"complete": 540 + 15 + 300 + 15, "no_room": 15 + 6}
    python_ends = {"complete": 480 + 15, "truncated": 6}
    assert before[3] == (python_ends, round(495 / 501, 6))
    assert compact(database) == 1
    assert await ends() == before
    rows("DELETE FROM node_prof WHERE tier_s = 10")
    assert await ends() == before
    rows("DELETE FROM node_prof")
    assert await ends() == ({}, None, [], ({}, None))


async def test_late_batches_have_them_in_the_minute(get, new_node, batch_of):
    node = new_node("web-1")
    await node.send(batch_of(node, {"complete": (9, 0, 0)}, minute_start(60 * 5)))
    asked = {"from": "now-6h"}
    coverage = (await get("/api/v1/flamegraph", **asked))["coverage"]
    assert coverage["stack_ends"] == {"complete": 9}


async def test_a_batch_sent_again_counts_once(get, new_node, batch_of, client):
    node = new_node("web-1")
    ends = {"complete": (9, 0, 0), "word_of_2030": (0, 3, 0)}
    batch = batch_of(node, ends, minute_start(), {"off": (0, 7, 0)})
    assert [(await node.send(batch)).status for _ in range(3)] == ["stored"] + 2 * ["duplicate"]
    found = (await get("/api/v1/flamegraph"))["coverage"]["stack_ends"]
    assert found == {"complete": 9, "other": 3}
    async with client.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    counted = [line for line in lines if line.startswith("flamefleet_stack_ends_total")]
    assert len(counted) == 8  # every reason from the start, and never one more
    assert 'flamefleet_stack_ends_total{reason="complete"} 9.0' in counted
    assert 'flamefleet_stack_ends_total{reason="other"} 3.0' in counted
    assert 'flamefleet_stack_ends_total{reason="read_fault"} 0.0' in counted
    assert 'flamefleet_python_ends_total{reason="off"} 7.0' in lines
    assert 'flamefleet_python_ends_total{reason="complete"} 0.0' in lines


async def test_an_agent_that_does_not_say_is_not_held_against_the_others(
    get, new_node, batch_of, stack_of
):
    old, new = new_node("web-1"), new_node("web-2")
    await old.send(old.batch({stack_of(1): 500}))
    await new.send(batch_of(new, {"complete": (99, 0, 0), "no_rows": (1, 0, 0)}, minute_start()))
    coverage = (await get("/api/v1/flamegraph"))["coverage"]
    assert (coverage["samples"], coverage["complete_share"]) == (690, 0.99)


async def test_a_damaged_blob_of_ends_costs_no_sample(get, new_node, batch_of, database, rows):
    node = new_node("web-1")
    start_s = minute_start()
    for step in range(2):
        ends = {"complete": (50 + step, 0, 0)}
        await node.send(batch_of(node, ends, start_s + 10 * step))
    rows("UPDATE node_prof SET stack_ends = 'damaged' WHERE date_part('second', bucket) = 0")
    coverage = (await get("/api/v1/flamegraph"))["coverage"]
    assert (coverage["samples"], coverage["lost_samples"]) == (380, 0)
    assert (coverage["damaged_blobs"], coverage["stack_ends"]) == (1, {"complete": 51})
    assert (await get("/api/v1/stack_ends"))["damaged_blobs"] == 1
    assert compact(database) == 1
    coverage = (await get("/api/v1/flamegraph"))["coverage"]
    assert (coverage["samples"], coverage["stack_ends"]) == (380, {"complete": 51})


async def test_ends_that_cannot_be_cost_no_samples(new_node, batch_of, client, rows):
    node = new_node("web-1")
    for ends, python_ends in (
        ({"complete": (101, 0, 0)}, {}),
        ({}, {"complete": (0, 51, 0)}),
        ({"No Rows": (1, 0, 0)}, {}),
        ({}, {"No Rows": (1, 0, 0)}),
    ):
        await node.send(batch_of(node, ends, minute_start(), python_ends))

    assert rows("SELECT count(*) FROM node_prof WHERE stack_ends = ''") == [(4,)]
    metrics = await (await client.get("/metrics")).text()
    assert 'flamefleet_dropped_total{reason="stack_end"} 4.0' in metrics


@pytest.mark.parametrize("parameters", [{"from": "yesterday"}, {"query": "nginx"}])
async def test_bad_parameters(client, error_of, parameters):
    request = client.get("/api/v1/stack_ends", params=parameters)
    assert await error_of(request) == (400, "bad_query")
