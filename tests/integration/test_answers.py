"""Headers of all answers, the names that questions are answered under, and compression."""

import gzip
import json
import zlib
from dataclasses import replace

import pytest
import zstandard
from aiohttp.test_utils import TestClient, TestServer

from aggregator.answers.compression import LEAST_BYTES, choose_coding
from aggregator.app import create_app
from aggregator.config import load_config
from aggregator.errors import ConfigError

PATHS = [
    "/",
    "/static/js/main.js",
    "/static/none.js",
    "/nothing",
    "/healthz",
    "/readyz",
    "/metrics",
    "/api/v1/nodes",
    "/api/v1/jobs",
    "/api/v1/alerts",
    "/api/v1/flamegraph",
    "/api/v1/flamegraph?format=pprof",
    "/api/v1/flamegraph?format=bad",
    "/api/v1/timeline?from=bad",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT"])
async def test_no_answer_lacks_its_headers(client, path, method):
    async with client.request(method, path) as response:
        headers = response.headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "same-origin"
    is_page = response.status == 200 and path in ("/", "/static/js/main.js")
    assert ("script-src" in headers["Content-Security-Policy"]) is is_page


async def ask(client, path, host, method="GET"):
    async with client.request(method, path, headers={"Host": host}) as response:
        return response.status, await response.text()


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8380", "LOCALHOST.", "127.0.0.1:8380", "127.1.2.3", "[::1]:80",
     "192.0.2.7", "profiles.example", "Profiles.Example:443", "other.example"],
)  # fmt: skip
async def test_questions_under_own_names_and_addresses_are_answered(centre_config, host):
    config = replace(
        centre_config,
        public_url="https://profiles.example/below/",
        allowed_hosts=("other.example",),
    )
    async with TestClient(TestServer(create_app(config))) as client:
        status, _ = await ask(client, "/api/v1/nodes", host)
        assert status == 200


@pytest.mark.parametrize("host", ["rebound.example", "127.0.0.1.example", "", "[::1", "a b"])
@pytest.mark.parametrize("path", ["/", "/static/js/main.js", "/api/v1/nodes"])
async def test_a_rebound_name_gets_nothing_and_is_told_the_setting(client, path, host):
    status, text = await ask(client, path, host)
    assert status in (421, 400 if " " in host else 421)
    if status == 421:
        error = json.loads(text)["error"]
        assert error["code"] == "foreign_host"
        assert "allowed_hosts" in error["remedy"]
        assert "public_url" in error["remedy"]


async def test_health_and_what_has_tokens_of_its_own_is_answered_under_any_name(
    client, centre_config, tmp_path
):
    for path in ("/healthz", "/readyz", "/metrics"):
        assert (await ask(client, path, "any.example"))[0] == 200
    assert (await ask(client, "/api/v1/batches", "any.example", "POST"))[0] == 401
    file = tmp_path / "token"
    file.write_text("0123456789abcdef")
    config = replace(centre_config, read_token_file=str(file))
    async with TestClient(TestServer(create_app(config))) as with_token:
        assert (await ask(with_token, "/api/v1/nodes", "any.example"))[0] == 401


def test_hosts_are_configured_by_file_and_environment(tmp_path):
    urls = {"database_url": "postgresql:///x", "broker_url": "redis://localhost"}
    file = tmp_path / "centre.toml"
    file.write_text('allowed_hosts = ["a.example", "b.example"]\n')
    assert load_config(file, {}, urls).allowed_hosts == ("a.example", "b.example")
    environ = {"FLAMEFLEET_ALLOWED_HOSTS": "a.example, c.example"}
    assert load_config(None, environ, urls).allowed_hosts == ("a.example", "c.example")
    with pytest.raises(ConfigError, match="list of words"):
        load_config(None, {}, {**urls, "allowed_hosts": 7})
    with pytest.raises(ConfigError, match="whole address"):
        load_config(None, {}, {**urls, "public_url": "profiles.example"})


def unpack(coding, data):
    if coding == "zstd":
        return zstandard.ZstdDecompressor().decompress(data)
    return gzip.decompress(data) if coding == "gzip" else zlib.decompress(data)


@pytest.mark.parametrize("coding", ["zstd", "gzip", "deflate"])
@pytest.mark.parametrize("path", ["/", "/static/js/main.js"])
async def test_large_answers_are_compressed_as_the_client_takes_them(app, path, coding):
    async with TestClient(TestServer(app), auto_decompress=False) as client:
        async with client.get(path, headers={"Accept-Encoding": "identity"}) as response:
            plain = await response.read()
            assert "Content-Encoding" not in response.headers
            assert response.headers["Vary"] == "Accept-Encoding"
        async with client.get(path, headers={"Accept-Encoding": coding}) as response:
            packed = await response.read()
            assert response.headers["Content-Encoding"] == coding
            assert response.headers["Vary"] == "Accept-Encoding"
            assert int(response.headers["Content-Length"]) == len(packed)
            etag = response.headers["ETag"]
        assert unpack(coding, packed) == plain
        assert len(packed) < len(plain) / 2
        headers = {"Accept-Encoding": coding, "If-None-Match": etag}
        async with client.get(path, headers=headers) as response:
            assert response.status == 304


async def test_a_flamegraph_is_compressed_and_the_same(client, node, stack_of):
    stacks = {stack_of(number): 1 + number for number in range(400)}
    await node.send(node.batch(stacks))
    await node.define(list(stacks))
    asked = "/api/v1/flamegraph?from=now-5m"
    async with client.get(asked, headers={"Accept-Encoding": "gzip"}) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        packed_bytes, packed = int(response.headers["Content-Length"]), await response.json()
    async with client.get(asked, headers={"Accept-Encoding": "identity"}) as response:
        plain_bytes, plain = int(response.headers["Content-Length"]), await response.json()
    assert packed_bytes < plain_bytes / 3
    assert packed.keys() == plain.keys()


async def test_small_and_packed_answers_stay_as_they_are(client):
    for path in ("/healthz", "/api/v1/flamegraph?format=pprof", "/static/icon.svg"):
        async with client.get(path, headers={"Accept-Encoding": "gzip"}) as response:
            body = await response.read()
            assert len(body) < LEAST_BYTES or response.content_type == "application/octet-stream"
            assert "Content-Encoding" not in response.headers, path


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("", None),
        ("identity", None),
        ("br", None),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip, deflate", "gzip"),
        ("GZIP", "gzip"),
        ("gzip;q=0", None),
        ("zstd;q=0.1, gzip;q=0.9", "gzip"),
        ("*", "zstd"),
        ("*;q=0", None),
        ("zstd;q=0, *", "gzip"),
        ("gzip;q=nonsense", None),
        ("gzip; q=1.0", "gzip"),
    ],
)
def test_the_client_says_which(accepted, coding):
    assert choose_coding(accepted) == coding
