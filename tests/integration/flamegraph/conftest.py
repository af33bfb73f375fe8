"""Asking for flamegraphs of what real nodes sent."""

import time

import pytest


@pytest.fixture
def ask(client):
    """The columnar answer to a question, checked for what always holds."""

    async def ask_centre(**parameters):
        async with client.get("/api/v1/flamegraph", params=parameters) as response:
            assert response.status == 200, await response.text()
            assert response.content_type == "application/json"
            answer = await response.json()
        nodes = answer["nodes"]
        assert len({len(column) for column in nodes.values()}) == 1
        assert nodes["parent"][0] == -1 and nodes["level"][0] == 0
        assert nodes["total"][0] == answer["total_ns"] == sum(nodes["self"])
        assert answer["kinds"][0] == "process"
        return answer

    return ask_centre


@pytest.fixture
def send_at(new_node):
    """Sends samples of a node as one batch that starts at a Unix time."""
    nodes = {}

    async def send(name, start_s, samples, labels=None, **changes):
        if name not in nodes:
            nodes[name] = new_node(name)
        node = nodes[name]
        answer = await node.send(
            node.batch(samples, labels, start_ns=int(start_s * 10**9), **changes)
        )
        assert answer.status == "stored"
        if answer.want:
            await node.define(list(samples))

    return send


@pytest.fixture
def minutes_ago():
    """minutes_ago(n): Unix time of the start of the minute n minutes before the test began."""
    begun = time.time() // 60 * 60
    return lambda minutes: begun - 60 * minutes


@pytest.fixture
def paths():
    """Reads an answer into {"service;function;...": self ns} and the kind of each function by
    name."""
    return _paths


def _paths(answer):
    strings, functions, nodes = answer["strings"], answer["functions"], answer["nodes"]
    names = [strings[index] for index in functions["name"]]
    found, known = {}, []
    for function, parent, own in zip(
        nodes["function"], nodes["parent"], nodes["self"], strict=True
    ):
        path = [*known[parent], names[function]] if parent > 0 else [names[function]]
        known.append(path)
        if own:
            found[";".join(path)] = own
    kinds = {names[i]: answer["kinds"][functions["kind"][i]] for i in set(nodes["function"])}
    return found, kinds
