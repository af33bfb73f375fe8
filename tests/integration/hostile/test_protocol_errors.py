"""Requests that aiohttp refuses before the application sees them are answered in words, as JSON."""

import json
from urllib.parse import quote

import pytest

from aggregator.app_keys import METRICS

NAME = "界"
LONGEST = '{service="' + NAME * 3_400 + '"}'


async def ask(connect, port, head):
    """Status and body of the answer to the bytes of a request."""
    reader, writer = await connect(port)
    writer.write(head)
    answer = await reader.read()
    first, _, rest = answer.partition(b"\r\n")
    headers, _, body = rest.partition(b"\r\n\r\n")
    return int(first.split()[1]), headers.lower(), body


def question(selector):
    path = f"/api/v1/flamegraph?query={quote(selector)}"
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()


@pytest.mark.parametrize(
    "selector",
    ['{service="' + NAME * 1_300 + '"}', LONGEST, '{host=~"' + "|".join(["web-1"] * 60) + '"}'],
)
async def test_a_long_selector_is_answered(serve, connect, selector):
    status, _, body = await ask(connect, await serve(), question(selector))
    assert status == 200, body
    assert json.loads(body)["coverage"]["samples"] == 0


@pytest.mark.parametrize(
    ("head", "code", "words", "remedy"),
    [
        (question('{service="' + NAME * 9_000 + '"}'), "line_too_long", "32768 bytes", "host=~"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 9_000 + b"\r\n\r\n", "line_too_long", "8190", "share"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "bad_request", "no HTTP", "TLS"),
        (b"GET / HTTP/x\r\n\r\n", "bad_request", "no HTTP", "HTTP/1.1"),
        (b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", "bad_request", "no HTTP", "HTTP/1.1"),
        (b"GET / HTTP/1.1\r\nno header\r\n\r\n", "bad_request", "no HTTP", "HTTP/1.1"),
    ],
)
async def test_a_refusal_of_the_protocol_is_json_in_words(
    serve, connect, app, head, code, words, remedy
):
    port = await serve()
    status, headers, body = await ask(connect, port, head)
    assert status == 400
    assert b"content-type: application/json" in headers
    assert b"x-content-type-options: nosniff" in headers
    error = json.loads(body)["error"]
    assert error["code"] == code
    assert words in error["message"]
    assert remedy in error["remedy"]
    assert len(error["message"]) < 300
    counted = app[METRICS].refused.labels(code)
    assert counted._value.get() == 1


async def test_an_unknown_path_and_a_wrong_method_are_json_too(serve, connect):
    port = await serve()
    for line, status in (("GET /nothing", 404), ("DELETE /api/v1/flamegraph", 405)):
        head = f"{line} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
        answered, _, body = await ask(connect, port, head)
        assert answered == status
        assert json.loads(body)["error"]["message"]
