"""Batches over HTTP into a real Postgres: what is stored, and how often."""

import asyncio
from datetime import datetime, timedelta, timezone
from email.utils import formatdate

import pytest
from aiohttp.test_utils import TestClient, TestServer

from aggregator.app import create_app
from aggregator.profiles.codec import decode_sections
from wire.schema import Series

HOUR_NS = 3_600 * 10**9


def packed(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "little") for value in values)


async def test_batch_becomes_one_blob(node, stack_of, stack_hash_of, rows):
    stacks = [stack_of(i) for i in range(3)]
    batch = node.batch(dict(zip(stacks, (50, 30, 20), strict=True)), lost={"ring_full": 7})

    answer = await node.send(batch)

    assert answer.status == "stored"
    assert answer.want == b"".join(sorted(stack_hash_of(stack) for stack in stacks))
    [(tier_s, bucket, samples, lost, covered_ms, weight_ns, data)] = rows(
        "SELECT tier_s, bucket, samples, lost, covered_ms, weight_ns, data FROM node_prof"
    )
    assert (tier_s, samples, lost, covered_ms) == (10, 100, 7, 10_000)
    assert weight_ns == 100 * 10**9 // 19
    assert bucket == datetime.fromtimestamp(batch.start_ns // 10**10 * 10, timezone.utc)
    [section] = decode_sections(data)
    assert section.rate_millihertz == 19_000
    ids = dict(rows("SELECT encode(uuid_send(hash), 'hex'), id FROM stacks"))
    stored = dict(zip(section.ids.tolist(), section.counts.tolist(), strict=True))
    assert stored == {
        ids[stack_hash_of(stack).hex()]: n for stack, n in zip(stacks, (50, 30, 20), strict=True)
    }
    assert rows("SELECT service, labels FROM series WHERE id = :id", id=section.series_id) == [
        ("demo", {"service": "demo"})
    ]


async def test_batch_updates_node_overhead_and_dirty_minute(node, stack_of, rows):
    batch = node.batch({stack_of(1): 1}, lost={"count_map_full": 3})

    await node.send(batch)

    [(seen, version, facts, rate, cpus, lost)] = rows(
        "SELECT last_seen_at, agent_version, facts, rate_millihertz, online_cpus, lost_samples "
        "FROM nodes"
    )
    assert datetime.now(timezone.utc) - seen < timedelta(minutes=1)
    assert (version, facts, rate, cpus, lost) == ("0.1.0", {"kernel": "6.18.0"}, 19_000, 4, 3)
    assert rows("SELECT cpu_percent, memory_bytes, map_bytes FROM node_overhead") == [
        (0.25, 30 << 20, 12 << 20)
    ]
    minute = datetime.fromtimestamp(batch.start_ns // (60 * 10**9) * 60, timezone.utc)
    assert rows("SELECT tier_s, bucket, node_id FROM dirty_bucket") == [
        (60, minute, rows("SELECT id FROM nodes")[0][0])
    ]


async def test_equal_labels_and_stacks_are_added_up(node, stack_of, stack_hash_of, rows):
    labels = {"service": "a", "version": "2"}
    stack_hash = stack_hash_of(stack_of(1))
    batch = node.batch(
        {},
        series=[Series(labels), Series(dict(reversed(labels.items()))), Series({"service": "b"})],
        stack_hashes=stack_hash * 4,
        series_index=packed(0, 1, 2, 0),
        counts=packed(1, 2, 4, 8),
    )

    await node.send(batch)

    sections = decode_sections(rows("SELECT data FROM node_prof")[0][0])
    services = dict(rows("SELECT id, service || '/' || version FROM series"))
    assert {services[s.series_id]: s.counts.tolist() for s in sections} == {"a/2": [11], "b/": [4]}


async def test_idle_host_is_coverage_without_samples(node, rows):
    await node.send(node.batch({}))

    [(samples, covered_ms, data)] = rows("SELECT samples, covered_ms, data FROM node_prof")
    assert (samples, covered_ms) == (0, 10_000)
    assert decode_sections(data) == []


async def test_batch_sent_again_is_counted_once(node, stack_of, stack_hash_of, rows):
    batch = node.batch({stack_of(1): 5})

    first, second = await node.send(batch), await node.send(batch)

    assert (first.status, second.status) == ("stored", "duplicate")
    assert second.want == stack_hash_of(stack_of(1))
    assert rows("SELECT sum(samples)::int FROM node_prof") == [(5,)]


async def test_older_batch_is_a_duplicate(node, stack_of, rows):
    first, second = node.batch({stack_of(1): 5}), node.batch({stack_of(1): 6})
    await node.send(first)
    await node.send(second)

    assert (await node.send(first)).status == "duplicate"
    assert rows("SELECT sum(samples)::int FROM node_prof") == [(11,)]


async def test_same_sequence_with_other_content_is_a_cloned_node(node, stack_of, error_of, rows):
    await node.send(node.batch({stack_of(1): 5}))
    other = node.batch({stack_of(1): 6}, sequence=1)

    assert await error_of(node.post("/api/v1/batches", other)) == (409, "cloned_node")
    assert rows("SELECT sum(samples)::int FROM node_prof") == [(5,)]


async def test_gaps_are_counted_as_lost_batches(node, stack_of, rows):
    await node.send(node.batch({stack_of(1): 1}, sequence=3))
    await node.send(node.batch({stack_of(1): 1}, sequence=4))
    await node.send(node.batch({stack_of(1): 1}, sequence=10))

    assert rows("SELECT lost_batches, high_water FROM runs") == [(7, 10)]
    assert rows("SELECT lost_batches FROM nodes") == [(7,)]


async def test_restarted_sampler_starts_a_run_of_its_own(node, stack_of, rows):
    await node.send(node.batch({stack_of(1): 5}))
    node.run, node.sequence = bytes(16), 0

    assert (await node.send(node.batch({stack_of(1): 6}))).status == "stored"
    assert rows("SELECT count(*)::int, sum(lost_batches)::int FROM runs") == [(2, 0)]
    assert rows("SELECT sum(samples)::int, count(DISTINCT part)::int FROM node_prof") == [(11, 2)]


@pytest.mark.parametrize(
    ("age_ns", "tier_s", "dirty"),
    [
        (3 * 60 * 10**9, 10, 1),
        (HOUR_NS + HOUR_NS // 2, 10, 1),
        (3 * HOUR_NS, 60, 0),
        (47 * HOUR_NS, 60, 0),
        (-5 * 60 * 10**9, 10, 1),
    ],
)
async def test_age_decides_the_tier(node, stack_of, rows, age_ns, tier_s, dirty):
    now = node.batch({}).start_ns
    await node.send(node.batch({stack_of(1): 5}, start_ns=now - age_ns))

    [(stored_tier, bucket)] = rows("SELECT tier_s, bucket FROM node_prof")
    assert stored_tier == tier_s
    assert bucket == datetime.fromtimestamp(
        (now - age_ns) // 10**9 // tier_s * tier_s, timezone.utc
    )
    assert rows("SELECT count(*)::int FROM dirty_bucket") == [(dirty,)]


@pytest.mark.parametrize("age_ns", [49 * HOUR_NS, -11 * 60 * 10**9])
async def test_batch_outside_the_accepted_times_is_refused(node, stack_of, error_of, rows, age_ns):
    batch = node.batch({stack_of(1): 5}, start_ns=node.batch({}).start_ns - age_ns)
    request = node.post("/api/v1/batches", batch, Date=formatdate(usegmt=True))

    assert await error_of(request) == (422, "out_of_time")
    assert rows("SELECT count(*)::int FROM node_prof") == [(0,)]
    assert rows("SELECT count(*)::int FROM stacks") == [(0,)]


async def test_clock_offset_is_taken_from_the_date_header(node, stack_of, rows):
    sent = datetime.now(timezone.utc) - timedelta(minutes=3)
    header = sent.strftime("%a, %d %b %Y %H:%M:%S GMT")
    response = await node.post("/api/v1/batches", node.batch({stack_of(1): 1}), Date=header)

    assert response.status == 200
    [(offset_ms,)] = rows("SELECT clock_offset_ms FROM nodes")
    assert 175_000 < offset_ms < 190_000


async def test_known_stacks_are_not_wanted_again(node, stack_of, stack_hash_of):
    known, new = stack_of(1), stack_of(2)
    await node.send(node.batch({known: 1}))
    await node.define([known])

    assert (await node.send(node.batch({known: 1, new: 1}))).want == stack_hash_of(new)
    assert (await node.send(node.batch({known: 1}))).want == b""


async def test_200_concurrent_batches_of_20_nodes_are_counted_exactly(
    new_node, stack_of, rows, client
):
    nodes = [new_node(f"web-{i}") for i in range(20)]

    async def work(index, node):
        for number in range(10):
            samples = {stack_of(number): 1 + index, stack_of(100 + index): 1000}
            batch = node.batch(samples)
            answers = await asyncio.gather(node.send(batch), node.send(batch))  # and once again
            assert sorted(answer.status for answer in answers) == ["duplicate", "stored"]

    await asyncio.gather(*(work(index, node) for index, node in enumerate(nodes)))

    assert rows("SELECT count(*)::int, sum(samples)::int FROM node_prof") == [
        (200, 10 * sum(1 + i for i in range(20)) + 200 * 1000)
    ]
    assert rows("SELECT count(*)::int, min(high_water)::int FROM runs") == [(20, 10)]
    assert rows("SELECT count(*)::int, count(DISTINCT hash)::int FROM stacks") == [(30, 30)]
    metrics = await (await client.get("/metrics")).text()
    assert 'flamefleet_batches_total{result="stored"} 200.0' in metrics
    assert 'flamefleet_batches_total{result="duplicate"} 200.0' in metrics


async def test_two_aggregators_store_a_batch_once(node, centre_config, stack_of, rows):
    async with TestClient(TestServer(create_app(centre_config))) as other:
        twin = type(node)(node.name, node.token, other, node.run)
        for _ in range(10):
            batch = node.batch({stack_of(1): 1})
            answers = await asyncio.gather(node.send(batch), twin.send(batch))
            assert sorted(answer.status for answer in answers) == ["duplicate", "stored"]

    assert rows("SELECT count(*)::int, sum(samples)::int FROM node_prof") == [(10, 10)]


async def test_restarted_aggregator_knows_what_it_stored(node, centre_config, stack_of, rows):
    batch = node.batch({stack_of(1): 5})
    await node.send(batch)
    await node.define([stack_of(1)])
    await node.client.close()

    async with TestClient(TestServer(create_app(centre_config))) as client:
        node.client = client
        assert (await node.send(batch)).status == "duplicate"
        answer = await node.send(node.batch({stack_of(1): 6}))
        assert (answer.status, answer.want) == ("stored", b"")
    assert rows("SELECT sum(samples)::int FROM node_prof") == [(11,)]
