"""A machine copied while its agent ran: both copies send as the same node, run and sequence."""

import io
import shutil

import pytest

from node_agent.shipper.client import Client
from node_agent.shipper.report import Report
from node_agent.shipper.shipper import Shipper
from node_agent.spool import Spool


@pytest.fixture
def machine(node, client, tmp_path):
    """Makes a spool and a shipper with the node's token, or a copy of another's spool."""
    token_file = tmp_path / "token"
    token_file.write_text(node.token)
    clients = []

    def make(name, original=None):
        if original is not None:
            shutil.copytree(original.spool.root, tmp_path / name)
        spool = Spool(tmp_path / name)
        spool.create()
        clients.append(Client(f"http://127.0.0.1:{client.port}", token_file, None, 5.0))
        return Shipper(spool, clients[-1], Report(spool, io.StringIO()), lambda: 0.0)

    yield make
    for one in clients:
        one.close()


async def test_a_clone_is_refused_said_and_never_counted(deliver, machine, node, stack_of, rows):
    first = machine("first")
    before = node.batch({stack_of(1): 100})
    first.spool.put_batch(before, None)
    clone = machine("clone", first)  # with the batch that both still have to send
    own = node.batch({stack_of(1): 5})
    first.spool.put_batch(own, None)
    clone.spool.put_batch(node.batch({stack_of(2): 7}, sequence=own.sequence), None)

    await deliver(first)
    await deliver(clone)

    # The common batch came twice and counts once; of the two different ones, the first.
    assert rows("SELECT sum(samples)::int FROM node_prof") == [(105,)]
    assert rows("SELECT high_water::int, lost_batches::int FROM runs") == [(own.sequence, 0)]
    assert first.spool.dropped == {}
    assert clone.spool.dropped == {"refused_409": 1}
    status = clone.report.status()
    assert status["sent"] == {"duplicates": 1}
    [alert] = status["alerts"]
    assert alert["message"].startswith("cloned node")
    assert len(list((clone.spool.root / "refused").iterdir())) == 1

    # The machine that was first goes on as if nothing had been.
    first.spool.put_batch(node.batch({stack_of(1): 1}), None)
    await deliver(first)
    assert rows("SELECT sum(samples)::int FROM node_prof") == [(106,)]
