"""The real shipper with a real spool against the real aggregator, over its restarts."""

import asyncio
import io

import pytest
from aiohttp.test_utils import TestServer, unused_port

from aggregator.app import create_app
from node_agent.shipper.client import Client
from node_agent.shipper.report import Report
from node_agent.shipper.shipper import Shipper
from node_agent.spool import Spool

BATCHES = 30


@pytest.fixture
def spool(tmp_path):
    """An empty spool."""
    spool = Spool(tmp_path / "spool")
    spool.create()
    return spool


@pytest.fixture
def shipper_to(spool, node, tmp_path):
    """Makes a shipper for a port on the loopback, with the node's token."""
    token_file = tmp_path / "token"
    token_file.write_text(node.token)
    token_file.chmod(0o600)
    clients = []

    def make(port):
        client = Client(f"http://127.0.0.1:{port}", token_file, None, 5.0)
        clients.append(client)
        return Shipper(spool, client, Report(spool, io.StringIO()), lambda: 0.0)

    yield make
    for client in clients:
        client.close()


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
