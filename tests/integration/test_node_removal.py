"""Nodes leave the fleet: removed by an operator or forgotten as silent, and come back."""

import json

import pytest

from aggregator.access.operators import create_operator_token
from aggregator.access.service import create_token
from aggregator.cli import main
from aggregator.db import session_scope
from aggregator.fleet.removal import drop_removed, forget_silent


@pytest.fixture
def operator(database):
    with session_scope(database) as session:
        return create_operator_token(session, "ann")


@pytest.fixture
def firing(rows):
    """firing(name): an alert fires for the node."""
    return lambda name: rows(
        "INSERT INTO alerts (rule, node_id, value, threshold)"
        " SELECT 'cloned_node', id, 1, 0 FROM nodes WHERE name = :name",
        name=name,
    )


async def names_of(client, query=""):
    async with client.get(f"/api/v1/nodes{query}") as response:
        return [node["name"] for node in (await response.json())["nodes"]]


async def remove(client, name, token):
    headers = {"Authorization": f"Bearer {token}"}
    async with client.delete(f"/api/v1/nodes/{name}", headers=headers) as response:
        return response.status, await response.json()


async def test_a_removed_node_is_gone_and_its_history_stays(
    client, node, new_node, operator, firing, stack_of, rows
):
    other = new_node("web-2")
    for one in (node, other):
        await one.send(one.batch({stack_of(1): 5}))
        firing(one.name)

    assert await remove(client, "web-1", operator) == (
        200,
        {"name": "web-1", "tokens_revoked": 1, "alerts_resolved": 1},
    )

    assert await names_of(client) == ["web-2"]
    assert await names_of(client, "?removed=1") == ["web-1"]
    assert await node.post_batch({stack_of(1): 1}) == 401  # at once
    assert rows("SELECT state FROM alerts ORDER BY node_id") == [("resolved",), ("firing",)]
    asked = {"from": "now-5m", "query": '{host="web-1"}'}
    async with client.get("/api/v1/flamegraph", params=asked) as response:
        answer = await response.json()
        assert answer["coverage"]["samples"] == 5, answer
    assert (await remove(client, "web-1", operator))[0] == 404
    asked = client.post(
        "/api/v1/nodes/web-1/profiles", headers={"Authorization": f"Bearer {operator}"}
    )
    async with asked as response:
        assert response.status == 404


@pytest.mark.parametrize("token", ["", "nonsense", "node"])
async def test_only_an_operator_removes(client, node, token):
    given = node.token if token == "node" else token
    assert (await remove(client, "web-1", given))[0] == 401
    assert await names_of(client) == ["web-1"]


async def test_a_new_token_brings_a_node_back(client, node, operator, database, stack_of, rows):
    await node.send(node.batch({stack_of(1): 5}))
    await remove(client, "web-1", operator)
    with session_scope(database) as session:
        node.token = create_token(session, "web-1")
    assert await names_of(client) == ["web-1"]
    await node.send(node.batch({stack_of(1): 5}))
    assert rows("SELECT count(DISTINCT node_id)::int FROM node_prof") == [(1,)]


async def test_thirty_silent_hosts_are_forgotten_and_one_comes_back(
    client, new_node, database, stack_of, rows, firing
):
    nodes = [new_node(f"web-{number}") for number in range(31)]
    for node in nodes:
        await node.send(node.batch({stack_of(1): 5}))
        firing(node.name)
    rows("UPDATE nodes SET last_seen_at = now() - interval '20 days' WHERE name <> 'web-0'")
    with session_scope(database) as session:
        assert forget_silent(session, 0, []) == 0
        assert forget_silent(session, 21, []) == 0
        assert forget_silent(session, 19, []) == 60  # thirty nodes, thirty alerts
        assert forget_silent(session, 19, []) == 0
    assert await names_of(client) == ["web-0"]
    # Silence revokes nothing: a host that was off comes back by itself.
    await nodes[7].send(nodes[7].batch({stack_of(1): 5}))
    assert await names_of(client) == ["web-0", "web-7"]
    with session_scope(database) as session:
        assert forget_silent(session, 19, []) == 1
    assert rows("SELECT removed_at FROM nodes WHERE name = 'web-7'") == [(None,)]


async def test_what_is_left_of_a_removed_node_goes_with_its_history(
    client, node, operator, database, centre_config, stack_of, rows
):
    await node.send(node.batch({stack_of(1): 5}))
    await remove(client, "web-1", operator)
    rows("UPDATE nodes SET removed_at = now() - interval '30 days'")
    with session_scope(database) as session:
        assert drop_removed(session, centre_config.retention) == 0  # its samples are still there
    rows("DELETE FROM node_prof")
    with session_scope(database) as session:
        assert drop_removed(session, centre_config.retention) == 1
    assert rows("SELECT count(*)::int FROM nodes") == [(0,)]


@pytest.fixture
def command(centre_config, capsys):
    """command(*arguments): `flamefleet node ...`; its status, output and errors."""

    def run(*arguments):
        flags = ["--database-url", centre_config.database_url, "--broker-url", "redis://x"]
        status = main(["node", *arguments, *flags])
        return status, *capsys.readouterr()

    return run


def test_the_command_lists_and_removes(command, enrol, rows):
    for name in ("web-1", "web-2", "evil\x1b[2J\u202ename"):
        enrol(name)
    status, listed, _ = command("list")
    assert status == 0
    assert listed.splitlines()[0].split()[:3] == ["evil\\x1b[2J\\u202ename", "new", "never"]
    assert "\x1b" not in listed

    assert command("remove", "web-1", "none")[0] == 1  # all of them, or none
    assert len(json.loads(command("list", "--json")[1])) == 3
    status, said, _ = command("remove", "web-1", "web-2")
    assert status == 0
    assert said.splitlines()[1] == (
        "web-2 removed: 1 token(s) revoked, 0 alert(s) ended; its history stays readable"
    )
    assert [n["name"] for n in json.loads(command("list", "--removed", "--json")[1])] == [
        "web-1",
        "web-2",
    ]
