"""Bad questions, damaged data, a database that is gone: said in words."""

import pytest
from aiohttp.test_utils import TestClient, TestServer

from aggregator.app import create_app
from aggregator.config import CentreConfig
from wire.schema import Module, ModuleKind

APP = Module(ModuleKind.NATIVE, b"\x01" * 20, "app")
MAIN = (APP, 0x1000)


async def test_a_damaged_blob_is_counted_as_lost(ask, send_at, rows, minutes_ago):
    await send_at("web-1", minutes_ago(2), {(MAIN,): 19})
    await send_at("web-2", minutes_ago(2), {(MAIN,): 38})
    rows("UPDATE node_prof SET data = substr(data, 1, 9) WHERE samples = 38")
    answer = await ask()
    assert answer["total_ns"] == 10**9
    assert answer["coverage"]["damaged_blobs"] == 1
    assert answer["coverage"]["lost_samples"] == 38


async def test_a_question_about_too_much_is_refused_in_words(
    ask, error_of, client, send_at, monkeypatch, minutes_ago
):
    """What is left out by labels does not count."""
    for step, service in enumerate(("one", "two", "three")):
        labels = {"service": service}
        await send_at("web-1", minutes_ago(3) + 10 * step, {(MAIN,): 19}, labels=labels)
    monkeypatch.setattr("aggregator.profiles.column_sums.MOST_DISTINCT", 2)
    request = client.get("/api/v1/flamegraph")
    assert await error_of(request) == (413, "too_much")
    assert (await ask(query='{service=~"one|two"}'))["total_ns"] == 2 * 10**9
    monkeypatch.undo()
    monkeypatch.setattr("aggregator.flamegraph.service.MOST_STACKS", 0)
    request = client.get("/api/v1/flamegraph")
    assert await error_of(request) == (413, "too_much")
    monkeypatch.undo()
    assert (await ask())["total_ns"] == 3 * 10**9


@pytest.mark.parametrize("path", ["flamegraph", "timeline", "nodes", "labels"])
async def test_a_database_that_is_gone_is_said_so(path, valkey_url, error_of):
    url = "postgresql+psycopg://nobody@127.0.0.1:1/nowhere"
    app = create_app(CentreConfig(database_url=url, broker_url=valkey_url))
    async with TestClient(TestServer(app)) as lonely:
        request = lonely.get(f"/api/v1/{path}")
        assert await error_of(request) == (503, "database_unavailable")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"from": "now", "until": "now-5m"}, "is not before until"),
        ({"from": "now-5m", "until": "now-5m"}, "is not before until"),
        ({"from": "yesterday"}, "from='yesterday' is not a time"),
        ({"until": "2026-01-01"}, "until='2026-01-01' is not a time"),
        ({"format": "svg"}, "format='svg' is unknown; known are columnar, folded, pprof"),
        ({"max_nodes": "0"}, "max_nodes='0' must be a whole number, 1 to 200000"),
        ({"max_nodes": "200001"}, "max_nodes"),
        ({"max_nodes": "-5"}, "max_nodes"),
        ({"max_nodes": "1e3"}, "max_nodes"),
        ({"max_nodes": "٣"}, "max_nodes"),
        ({"query": "nginx"}, 'query: expected "{" at position 1'),
        ({"query": '{service="a"'}, "at position 13"),
        ({"query": '{service=~"("}'}, "position 11 is not valid RE2"),
        ({"query": "{" + 'a="b",' * 33 + "}"}, "at most 32"),
    ],
)
async def test_bad_parameters_are_named(client, parameters, words):
    async with client.get("/api/v1/flamegraph", params=parameters) as response:
        assert response.status == 400
        error = (await response.json())["error"]
    assert error["code"] == "bad_query"
    assert words in error["message"]
    assert error["remedy"]
