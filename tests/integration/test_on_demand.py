"""Profiles on demand through a real aggregator and Postgres, with nodes that speak the wire."""

import time
from urllib.parse import quote

import pytest
from aiohttp.test_utils import TestClient, TestServer

from aggregator.access.operators import create_operator_token
from aggregator.app import create_app
from aggregator.db import session_scope
from wire.schema import Event, ProfileDirective, ProfileEndDirective

PATH = "/api/v1/nodes/web-1/profiles"
SECOND_NS = 10**9
BEGUN_S = 0  # see the fixture
FACTS = {"on_demand_max_rate_hz": "199", "on_demand_collectors": "cpu"}


@pytest.fixture(autouse=True)
def begun(monkeypatch):
    """A whole ten seconds, as profiles begin, two minutes before each test."""
    monkeypatch.setitem(globals(), "BEGUN_S", int(time.time()) // 10 * 10 - 120)


@pytest.fixture
def operator(database):
    """Headers of the operator ann."""
    with session_scope(database) as session:
        return {"Authorization": f"Bearer {create_operator_token(session, 'ann')}"}


@pytest.fixture
def call(client, operator):
    """call(method, path, **json): status and JSON of a request with the operator's token."""

    async def send(method, path=PATH, **body):
        async with client.request(method, path, json=body or None, headers=operator) as response:
            return response.status, await response.json()

    return send


@pytest.fixture
def send(node, stack_of):
    """send(at_s, *events): a stored batch of ten seconds that began `at_s` after BEGUN_S; what the
    node is told about profiles."""

    async def put(at_s, *events, samples=100, **changes):
        start_ns = BEGUN_S * SECOND_NS + round(at_s * SECOND_NS)
        batch = node.batch(
            {stack_of(1): samples},
            **{"start_ns": start_ns, "facts": FACTS, "events": list(events), **changes},
        )
        directives = (await node.send(batch)).directives
        return [d for d in directives if isinstance(d, ProfileDirective | ProfileEndDirective)]

    return put


def says(number, reason, words, at_s, value=0.0):
    at_ns = (BEGUN_S + at_s) * SECOND_NS
    return Event(at_ns, "profile", reason, f"profile {number}: {words}", value)


async def test_a_profile_from_asking_to_its_flamegraph(call, client, send, node, stack_of):
    assert await send(-30) == []
    status, asked = await call("POST", seconds=20, rate_hz=199)
    assert status == 202
    number = asked["id"]
    assert asked["url"] == f"{PATH}/{number}"
    assert (asked["state"], asked["operator"]) == ("waiting", "ann")
    assert "told with the answer to its next batch" in asked["reason"]

    (directive,) = await send(-20)
    assert (directive.id, directive.rate_hz, directive.seconds) == (number, 199, 20)
    assert 200 < directive.begin_within_s <= 300
    (again,) = await send(-10)
    assert (again.id, again.begin_within_s <= directive.begin_within_s) == (number, True)
    assert (await call("GET", asked["url"]))[1]["reason"].startswith("the node was told")

    begun = says(number, "begun", "began, 199 Hz for 20 s", 0, 199.0)
    assert await send(-5, begun, duration_ns=5 * SECOND_NS) == []
    running = (await call("GET", asked["url"]))[1]
    assert (running["state"], running["samples"]) == ("running", 0)
    await send(0.01, rate_millihertz=199_000, samples=1_990)
    assert (await call("GET", asked["url"]))[1]["samples"] == 1_990
    ended = says(number, "ended", "ended after 20 s", 20, 20.0)
    await send(10.01, ended, rate_millihertz=199_000, samples=1_990)
    await send(20.02)
    await node.define([stack_of(1)])

    done = (await call("GET", asked["url"]))[1]
    assert (done["state"], done["samples"], done["effective_rate_hz"]) == ("done", 3_980, 199.0)
    # Its flamegraph has its samples and no others.
    async with client.get(done["flamegraph"]["url"]) as response:
        answer = await response.json()
    assert answer["coverage"]["samples"] == 3_980
    assert answer["coverage"]["effective_rate_hz"] == 199.0
    assert answer["total_ns"] == 20 * SECOND_NS
    listed = (await call("GET"))[1]["profiles"]
    assert [profile["id"] for profile in listed] == [number]
    async with client.get(done["flamegraph"]["page"]) as response:
        assert response.status == 200


async def test_one_at_a_time_and_cancelling(call, send):
    await send(0)
    asked = (await call("POST"))[1]
    status, refused = await call("POST", seconds=20)
    assert (status, refused["error"]["code"]) == (409, "profile_under_way")
    assert f"DELETE {PATH}/{asked['id']}" in refused["error"]["remedy"]

    status, cancelled = await call("DELETE", asked["url"])
    assert (status, cancelled["state"]) == (200, "shortened")
    assert await send(10) == []

    asked = (await call("POST"))[1]
    assert len(await send(20)) == 1
    await send(30, says(asked["id"], "begun", "began", 20, 199.0))
    cancelled = (await call("DELETE", asked["url"]))[1]
    assert (cancelled["state"], cancelled["cancelled_by"]) == ("running", "ann")
    assert await send(40) == [ProfileEndDirective(asked["id"])]
    await send(50, says(asked["id"], "shortened", "cancelled after 30 s", 50, 30.0))
    assert (await call("GET", asked["url"]))[1]["state"] == "shortened"
    assert (await call("POST"))[0] == 202


async def test_who_may_ask(client, node, operator, error_of):
    node_token = {"Authorization": f"Bearer {node.token}"}
    for headers in ({}, node_token, {"Authorization": "Bearer ffo_wrong"}):
        assert await error_of(client.post(PATH, json={}, headers=headers)) == (401, "unknown_token")
        path = f"{PATH}/1"
        assert await error_of(client.delete(path, headers=headers)) == (401, "unknown_token")


async def test_refusals_in_words(call, send, node):
    status, answer = await call("POST", "/api/v1/nodes/web-2/profiles")
    assert (status, answer["error"]["code"]) == (404, "unknown_node")
    assert "did you mean web-1?" in answer["error"]["message"]
    for number in ("999", "x", "9" * 30):
        assert (await call("GET", f"{PATH}/{number}"))[0] == 404
    assert (await call("POST", seconds=601))[0] == 400

    await send(0, facts={"kernel": "6.1"})
    status, answer = await call("POST")
    assert (status, answer["error"]["code"]) == (422, "agent_too_old")
    await send(10)
    status, answer = await call("POST", rate_hz=500)
    assert (status, answer["error"]["code"]) == (422, "profile_not_offered")
    assert "on_demand_max_rate_hz" in answer["error"]["remedy"]


async def test_an_old_agent_is_never_told_and_a_new_node_is_waited_for(call, send):
    asked = (await call("POST"))[1]
    assert "never sent a batch" in asked["reason"]
    assert await send(0, facts={"kernel": "6.1"}) == []
    assert (await call("GET", asked["url"]))[1]["state"] == "refused"


async def test_a_name_may_be_any(call, new_node):
    name = 'rack "1"/web ü'
    new_node(name)
    status, asked = await call("POST", f"/api/v1/nodes/{quote(name, safe='')}/profiles")
    assert (status, asked["node"]) == (202, name)
    assert (await call("GET", asked["url"]))[1]["state"] == "waiting"


async def test_a_node_that_never_comes_expires(call, rows, send):
    asked = (await call("POST"))[1]
    rows("UPDATE profile_requests SET expires_at = now() - interval '1 second'")
    assert await send(0) == []
    expired = (await call("GET", asked["url"]))[1]
    assert expired["state"] == "expired"
    assert "never told" in expired["reason"]
    assert (await call("POST"))[0] == 202


async def test_it_outlives_the_aggregator_and_the_sampler(call, send, node, centre_config, rows):
    await send(-30)
    asked = (await call("POST"))[1]
    await send(-20)
    await send(-10, says(asked["id"], "begun", "began", 0, 199.0))
    await send(0.01)
    another = TestClient(TestServer(create_app(centre_config)))
    async with another, another.get(asked["url"]) as response:
        assert (await response.json())["state"] == "running"
    node.run, node.sequence = bytes(16), 0
    await send(15)
    shortened = (await call("GET", asked["url"]))[1]
    assert (shortened["state"], shortened["reason"]) == (
        "shortened",
        "the sampler was started again",
    )
    assert shortened["samples"] == 100


async def test_an_operator_cannot_ask_without_end(call, send, rows):
    await send(0)
    asked = (await call("POST"))[1]
    rows(
        "INSERT INTO profile_requests (node_id, operator, collector, rate_hz, seconds, state, "
        "created_at, expires_at) SELECT node_id, operator, collector, rate_hz, seconds, 'done', "
        "created_at, expires_at FROM profile_requests, generate_series(1, 59)"
    )
    await call("DELETE", asked["url"])
    status, answer = await call("POST")
    assert (status, answer["error"]["code"]) == (429, "too_many_profiles")
