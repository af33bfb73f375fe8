"""The real shipper with a real spool against the real aggregator, over its restarts."""

import asyncio
import time
from dataclasses import replace
from email.utils import formatdate

import pytest
from aiohttp.test_utils import TestServer, unused_port

from aggregator.app import create_app
from aggregator.app_keys import INGEST
from aggregator.config import Retention
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
def off_by(monkeypatch):
    """off_by(seconds): the centre's clock is so far off from now on."""

    class Clock:
        def __init__(self, seconds):
            self._off_ns = seconds * 10**9

        def time_ns(self):
            return time.time_ns() + self._off_ns

    return lambda seconds: monkeypatch.setattr("aggregator.ingest.views.time", Clock(seconds))


@pytest.mark.parametrize("off_s", [-700, -86_400, 3 * 86_400])
async def test_a_wrong_clock_of_the_centre_costs_no_batch(
    spool, shipper_to, node, stack_of, client, rows, off_by, off_s, app
):
    for _ in range(3):
        spool.put_batch(node.batch({stack_of(1): 1}), None)
    shipper = shipper_to(client.port)
    off_by(off_s)

    assert await asyncio.to_thread(shipper.step) >= 60  # Retry-After

    assert len(spool.pending()) == 3
    assert shipper.report.state == "waiting"
    assert "the clocks of node and centre are" in shipper.report.status()["last_error"]["message"]
    [(offset_ms,)] = rows("SELECT clock_offset_ms FROM nodes")  # which the alert tells
    assert abs(offset_ms - off_s * 1000) < 60_000
    await app[INGEST].refusals.write()
    assert rows("SELECT reason, count::int FROM node_refusals") == [("clocks_apart", 1)]
    off_by(0)
    await deliver(shipper, spool, 3)
    assert spool.pending() == []
    assert spool.dropped == {}
    assert rows("SELECT sum(samples)::int, count(*)::int FROM node_prof") == [(3, 3)]
    assert rows("SELECT lost_batches::int FROM nodes") == [(0,)]


@pytest.mark.parametrize(
    ("retention", "stored", "overheads"),
    [
        (Retention(3600, 3600, 3600), 2, 2),
        (Retention(7200, 3600, 3600), 2, 2),
        (Retention(3600, 30 * 3600, 3600), 4, 2),
        (Retention(3600, 30 * 3600, 30 * 3600), 4, 4),
    ],
)
async def test_late_batches_that_are_kept_no_more_are_lost_and_not_in_the_way(
    spool, shipper_to, node, stack_of, rows, centre_config, retention, stored, overheads
):
    app = create_app(replace(centre_config, retention=retention))
    async with TestServer(app) as server:
        now_ns = time.time_ns()
        ages_min = [47 * 60, 25 * 60, 80, 40, 0]
        for number, age_min in enumerate(ages_min):
            start_ns = now_ns - age_min * MINUTE_NS
            spool.put_batch(node.batch({stack_of(1): 2**number}, start_ns=start_ns), None)
        shipper = shipper_to(server.port)

        await deliver(shipper, spool, len(ages_min))
        await app[INGEST].refusals.write()

    assert spool.pending() == []
    assert spool.dropped == {"refused_422": len(ages_min) - stored}
    assert rows("SELECT count(*)::int FROM node_prof") == [(stored,)]
    assert rows("SELECT count(*)::int FROM node_overhead") == [(overheads,)]
    assert rows("SELECT lost_batches::int FROM nodes") == [(len(ages_min) - stored,)]
    assert rows("SELECT reason, count::int FROM node_refusals WHERE reason = 'outlived'") == [
        ("outlived", len(ages_min) - stored)
    ]
    assert rows("SELECT sum(count)::int FROM node_refusals WHERE reason = 'overhead_outlived'") == [
        (stored - overheads or None,)
    ]


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
