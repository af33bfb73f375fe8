"""With a read token, nobody reads a profile without it; agents and probes go on as before."""

import base64
from dataclasses import replace

import pytest

from aggregator.access.reading import CHALLENGE, load_read_token
from aggregator.errors import ConfigError

TOKEN = "0123456789abcdef~!/:x"
QUESTIONS = (
    *("/api/v1/flamegraph", "/api/v1/timeline", "/api/v1/nodes", "/api/v1/labels"),
    *("/api/v1/stack_ends", "/api/v1/alerts", "/api/v1/jobs", "/", "/static/js/main.js"),
)
OF_A_NODE = ("events", "profiles", "profiles/{id}")  # which there is none of yet
NAMELESS = tuple(f"/api/v1/nodes/nobody/{last.format(id=1)}" for last in OF_A_NODE)


def basic(text):
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.fixture
def centre_config(centre_config, tmp_path):
    path = tmp_path / "read-token"
    path.write_text(TOKEN + "\n")
    return replace(centre_config, read_token_file=str(path))


def test_the_list_is_complete(app):
    paths = {
        resource.canonical
        for resource in app.router.resources()
        for route in resource
        if route.method in ("GET", "HEAD")
    }
    covered = {path.replace("/js/main.js", "/{path}") for path in QUESTIONS}
    covered |= {f"/api/v1/nodes/{{name}}/{last}" for last in OF_A_NODE}
    assert {p for p in paths if p.startswith("/api")} <= covered
    assert paths - covered == {"/healthz", "/readyz", "/metrics"}


@pytest.mark.parametrize("path", [*QUESTIONS, *NAMELESS])
async def test_questions_and_the_page_need_it(client, error_of, path):
    for headers in (
        {},
        {"Authorization": "Bearer " + TOKEN[:-1]},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer " + "é" * 30},
        {"Authorization": TOKEN},
        {"Authorization": basic(TOKEN)},
        {"Authorization": basic(TOKEN + ":")},
        {"Authorization": "Basic ***"},
    ):
        assert await error_of(client.get(path, headers=headers)) == (401, "read_token")
        async with client.head(path, headers=headers) as response:
            assert response.status == 401
            assert response.headers["WWW-Authenticate"] == CHALLENGE
    for headers in (
        {"Authorization": f"Bearer {TOKEN}"},
        {"Authorization": f"bearer  {TOKEN} "},
        {"Authorization": basic("anybody:" + TOKEN)},
        {"Authorization": basic(":" + TOKEN)},
    ):
        async with client.get(path, headers=headers) as response:
            assert response.status == (404 if path in NAMELESS else 200), await response.text()


async def test_a_nodes_token_reads_nothing(client, error_of, node):
    headers = {"Authorization": f"Bearer {node.token}"}
    request = client.get("/api/v1/flamegraph", headers=headers)
    assert await error_of(request) == (401, "read_token")


async def test_agents_and_probes_do_not_need_it(client, node, stack_of, error_of):
    answer = await node.send(node.batch({stack_of(1): 1}))
    assert answer.status == "stored"
    for path in ("/healthz", "/readyz", "/metrics"):
        async with client.get(path) as response:
            assert response.status == 200
    # and the read token writes nothing
    headers = {"Authorization": f"Bearer {TOKEN}"}
    request = client.post("/api/v1/batches", data=b"", headers=headers)
    assert await error_of(request) == (401, "unknown_token")


async def test_what_is_not_there_is_not_told_without_it(client, error_of):
    for path in ("/api/v2/flamegraph", "/healthz/", "/healthz%2f..%2fapi/v1/nodes"):
        assert await error_of(client.get(path)) == (401, "read_token")


@pytest.mark.parametrize("content", [b"", b"short", b"two words of it, long enough", b"\xff" * 20])
def test_a_file_that_holds_no_token_stops_the_start(tmp_path, content):
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="one word of 16 or more"):
        load_read_token(str(path))
    with pytest.raises(ConfigError, match="cannot read"):
        load_read_token(str(path) + "-nowhere")
