"""The real shipper with a real spool against the real aggregator, over its restarts."""

import asyncio
import time
from email.utils import formatdate

import pytest
from aiohttp.test_utils import TestServer, unused_port

from aggregator.app import create_app
from node_agent.shipper.patience import Patience

BATCHES = 30
MINUTE_NS = 60 * 10**9


async def deliver(shipper, spool, steps):
    """Let the shipper take `steps` steps beside the event loop."""
    for _ in range(steps):
        await asyncio.to_thread(shipper.step)


def fill(spool, node, stack_of):
    """Put BATCHES batches with their definitions in, as a sampler does."""
    for number in range(BATCHES):
        stacks = [stack_of(number), stack_of(1000)]
        batch = node.batch(dict.fromkeys(stacks, number + 1))
        new = stacks if number == 0 else stacks[:1]
        assert spool.put_batch(batch, node.definitions(new))


async def test_spool_is_delivered_over_a_restart(
    spool, shipper_to, node, stack_of, centre_config, rows
):
    fill(spool, node, stack_of)
    port = unused_port()
    shipper = shipper_to(port)
    await deliver(shipper, spool, 2)  # nobody is there
    assert len(spool.pending()) == BATCHES

    for steps in (BATCHES // 2, BATCHES):
        server = TestServer(create_app(centre_config), port=port)
        await server.start_server()
        await deliver(shipper, spool, steps)
        await server.close()
        await deliver(shipper, spool, 1)

    assert spool.pending() == []
    assert spool.dropped == {}
    assert rows("SELECT count(*)::int, sum(samples)::int FROM node_prof") == [
        (BATCHES, 2 * sum(range(1, BATCHES + 1)))
    ]
    assert rows("SELECT high_water::int, lost_batches::int FROM runs") == [(BATCHES, 0)]
    assert rows("SELECT count(*)::int, count(frames)::int FROM stacks") == [
        (BATCHES + 1, BATCHES + 1)
    ]


async def test_directives_of_the_centre_reach_the_spool(
    spool, shipper_to, node, stack_of, client, rows
):
    fill(spool, node, stack_of)
    shipper = shipper_to(client.port)

    await deliver(shipper, spool, BATCHES)

    assert spool.pending() == []
    assert spool.take_directives() == [{"kind": "symbols", "module_kind": 0, "build_id": "01" * 20}]
    assert rows("SELECT symbol_state FROM modules") == [("requested",)]


async def test_batch_that_is_refused_for_good_is_not_in_the_way(
    spool, shipper_to, node, stack_of, client, rows
):
    good = [node.batch({stack_of(1): 1}) for _ in range(2)]
    spool.put_batch(good[0], None)
    spool.put_batch(node.batch({stack_of(1): 1}, start_ns=1), None)
    spool.put_batch(node.batch({stack_of(1): 7}), None)

    await deliver(shipper_to(client.port), spool, 4)

    assert spool.pending() == []
    assert rows("SELECT sum(samples)::int FROM node_prof") == [(8,)]
    assert rows("SELECT lost_batches::int FROM nodes") == [(2,)]
    assert [path.name for path in (spool.root / "refused").iterdir()]


async def test_a_stepping_clock_loses_what_is_out_of_time_and_nothing_else(
    spool, shipper_to, node, stack_of, client, rows
):
    now_ns = time.time_ns()
    ages_min = [0, 49 * 60, 47 * 60, -20, -5, 0]  # accepted: 48 hours back to 10 minutes ahead
    for number, age_min in enumerate(ages_min):
        start_ns = now_ns - age_min * MINUTE_NS
        spool.put_batch(node.batch({stack_of(1): 2**number}, start_ns=start_ns), None)
    shipper = shipper_to(client.port)

    await deliver(shipper, spool, len(ages_min))

    assert spool.pending() == []
    assert spool.dropped == {"refused_422": 2}
    assert shipper.report.status()["sent"]["batches"] == 4
    assert rows("SELECT sum(samples)::int FROM node_prof") == [(0b110101,)]
    assert rows("SELECT high_water::int, lost_batches::int FROM runs") == [(len(ages_min), 2)]


async def test_the_shipper_tells_its_clock(spool, shipper_to, node, stack_of, client, rows):
    spool.put_batch(node.batch({stack_of(1): 1}), None)

    await deliver(shipper_to(client.port), spool, 1)

    [(offset_ms,)] = rows("SELECT clock_offset_ms FROM nodes")
    assert abs(offset_ms) < 60_000  # the same clock, however busy the machine


async def test_the_date_is_that_of_the_moment_of_sending(
    spool, shipper_to, node, stack_of, client, rows, monkeypatch
):
    shipper = shipper_to(client.port)
    clock = time.time
    for ahead_s in (3600, -3600):
        spool.put_batch(node.batch({stack_of(1): 1}), None)
        monkeypatch.setattr(
            "node_agent.shipper.client.formatdate",
            lambda usegmt, ahead_s=ahead_s: formatdate(clock() + ahead_s, usegmt=usegmt),
        )
        await deliver(shipper, spool, 1)
        [(offset_ms,)] = rows("SELECT clock_offset_ms FROM nodes")
        assert abs(offset_ms + ahead_s * 1000) < 60_000


@pytest.fixture
def never_stored(rows):
    """never_stored(samples): from now on the database fails on batches of so many samples."""

    def refuse(samples):
        rows(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'a bug of this release'; END $$"
        )
        rows(
            "CREATE TRIGGER refuse BEFORE INSERT ON node_prof_10 FOR EACH ROW "
            f"WHEN (NEW.samples = {samples}) EXECUTE FUNCTION refuse()"
        )

    return refuse


async def test_a_batch_that_always_fails_is_set_aside(
    spool, shipper_to, node, stack_of, client, rows, never_stored
):
    for samples in (1, 66, 2, 4):
        spool.put_batch(node.batch({stack_of(1): samples}), None)
    never_stored(66)
    shipper = shipper_to(client.port, patience=Patience(attempts=4, patience_s=0.0))

    await deliver(shipper, spool, 4)  # one delivered, three attempts on the second
    assert len(spool.pending()) == 3
    assert shipper.report.status()["state"] == "waiting"
    assert spool.dropped == {}

    await deliver(shipper, spool, 3)
    assert spool.pending() == []
    assert spool.dropped == {"refused_500": 1}
    assert len(list((spool.root / "refused").iterdir())) == 1
    assert rows("SELECT sum(samples)::int FROM node_prof") == [(7,)]
    # The centre knows of the gap.
    assert rows("SELECT lost_batches::int FROM nodes") == [(1,)]
    assert shipper.report.status()["dropped"] == {"refused_500": 1}


async def test_a_centre_that_is_not_ready_costs_no_batch(
    spool, shipper_to, node, stack_of, client, app, rows, never_stored
):
    spool.put_batch(node.batch({stack_of(1): 66}), None)
    never_stored(66)
    rows("UPDATE alembic_version SET version_num = '0001'")
    shipper = shipper_to(client.port, patience=Patience(attempts=2, patience_s=0.0))

    await deliver(shipper, spool, 6)

    assert len(spool.pending()) == 1
    rows("DROP TRIGGER refuse ON node_prof_10")
    await deliver(shipper, spool, 1)
    assert spool.pending() == []
    assert spool.dropped == {}
    assert rows("SELECT sum(samples)::int FROM node_prof") == [(66,)]


async def test_definitions_that_always_fail_are_given_up_and_the_batch_counts(
    spool, shipper_to, node, stack_of, client, rows
):
    spool.put_batch(node.batch({stack_of(1): 3}), node.definitions([stack_of(1)]))
    spool.put_batch(node.batch({stack_of(1): 4}), None)
    rows(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'a bug of this release'; END $$"
    )
    rows("CREATE TRIGGER refuse BEFORE INSERT ON frames FOR EACH ROW EXECUTE FUNCTION refuse()")
    shipper = shipper_to(client.port, patience=Patience(attempts=3, patience_s=0.0))

    await deliver(shipper, spool, 4)

    assert spool.pending() == []
    assert spool.dropped["definitions_refused_500"] == 1
    assert rows("SELECT sum(samples)::int FROM node_prof") == [(7,)]
