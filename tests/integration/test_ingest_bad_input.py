"""Bad input over HTTP: a 4xx with its reason, nothing written, and the process keeps serving."""

import asyncio
import gzip
import io
import os
import time
from random import Random

import msgspec
import pytest
import zstandard
from aiohttp import ClientTimeout

from aggregator import bodies
from aggregator.app_keys import INGEST
from wire import limits
from wire.codec import SHORT_TYPE, decode, encode
from wire.schema import Answer, Batch, Event, Overhead, Series, SymbolExtract

PATHS = ("/api/v1/batches", "/api/v1/definitions", "/api/v1/symbols")
LIMITS = (limits.MAX_BATCH_BYTES, limits.MAX_DEFINITIONS_BYTES, limits.MAX_EXTRACT_BYTES)
TABLES = (
    "node_prof",
    "node_overhead",
    "dirty_bucket",
    "agent_events",
    "runs",
    "series",
    "stacks",
    "frames",
    "modules",
    "module_nodes",
    "symbol_files",
)


@pytest.fixture
def nothing_written(rows):
    """Asserts after the test that no table has a row."""
    yield
    for table in TABLES:
        assert rows(f"SELECT count(*)::int FROM {table}") == [(0,)], table


@pytest.fixture
def still_serves(node, stack_of):
    """Asserts that a good batch is stored after whatever the test sent."""

    async def check():
        assert (await node.send(node.batch({stack_of(1): 1}))).status == "stored"

    return check


def good_body(node, path, stack_of):
    if path == "/api/v1/batches":
        return encode(node.batch({stack_of(1): 1}, sequence=1))
    if path == "/api/v1/definitions":
        return encode(node.definitions([stack_of(1)]))
    return encode(SymbolExtract(node.name, 0, b"\x01" * 20, "libc.so.6", bytes(1000)))


def bomb(size):
    """`size` zero bytes inside a few kilobytes of zstd."""
    return zstandard.ZstdCompressor(level=3).compress(bytes(size))


def undeclared(data):
    """zstd without the size of its content."""
    compressor = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    return compressor.compress(data) + compressor.flush()


BODIES = {
    "empty": (lambda good: b"", 400, "malformed"),
    "three bytes": (lambda good: good[:3], 400, "malformed"),
    "header only": (lambda good: good[:4], 400, "malformed"),
    "truncated": (lambda good: good[:-5], 400, "malformed"),
    "half": (lambda good: good[: len(good) // 2], 400, "malformed"),
    "other magic": (lambda good: b"XX" + good[2:], 400, "malformed"),
    "version 3": (lambda good: good[:2] + b"\x03" + good[3:], 415, "unsupported_version"),
    "version 0": (lambda good: good[:2] + b"\x00" + good[3:], 415, "unsupported_version"),
    "other kind": (lambda good: good[:3] + b"A" + good[4:], 400, "malformed"),
    "noise": (lambda good: good[:4] + os.urandom(1000), 400, "malformed"),
    "not msgpack": (lambda good: good[:4] + zstandard.compress(b"\xc1" * 50), 400, "malformed"),
    "no map": (
        lambda good: good[:4] + zstandard.compress(msgspec.msgpack.encode([1, 2])),
        400,
        "malformed",
    ),
    "fields missing": (
        lambda good: good[:4] + zstandard.compress(msgspec.msgpack.encode({"node": "web-1"})),
        400,
        "malformed",
    ),
    "zip bomb": (lambda good: good[:4] + bomb(512 << 20), 413, "too_large"),
    "size undeclared": (lambda good: good[:4] + undeclared(bytes(1000)), 400, "malformed"),
    "json": (lambda good: b'{"node": "web-1"}', 400, "malformed"),
}


@pytest.mark.parametrize("path", PATHS)
async def test_bad_bodies(node, stack_of, error_of, nothing_written, client, path):
    good = good_body(node, path, stack_of)

    refused = {
        case: await error_of(node.post(path, change(good))) for case, (change, *_) in BODIES.items()
    }

    assert refused == {case: (status, code) for case, (_, status, code) in BODIES.items()}
    assert (await client.get("/healthz")).status == 200


async def test_good_batch_after_bad_ones(node, stack_of, error_of, still_serves):
    good = good_body(node, "/api/v1/batches", stack_of)
    for change, *_ in BODIES.values():
        await error_of(node.post("/api/v1/batches", change(good)))

    await still_serves()


@pytest.mark.parametrize(("path", "limit"), list(zip(PATHS, LIMITS, strict=True)))
async def test_oversized_body_is_refused_by_its_length(
    node, error_of, nothing_written, path, limit
):
    assert await error_of(node.post(path, io.BytesIO(bytes(limit + 1)))) == (413, "too_large")


async def test_oversized_chunked_body_is_cut_off_while_it_arrives(
    node, error_of, nothing_written, still_serves
):
    sent = 0

    async def endless():
        nonlocal sent
        while sent < 64 << 20:
            sent += 1 << 20
            yield bytes(1 << 20)

    try:
        refused = await error_of(node.post("/api/v1/batches", endless()))
        assert refused == (413, "too_large")
    except ConnectionError:  # the answer was overtaken by the connection's end
        pass
    assert sent < 64 << 20


async def test_content_encoding_is_refused(node, stack_of, error_of, nothing_written):
    for body in (gzip.compress(bytes(64 << 20)), b"x"):
        refused = node.post("/api/v1/batches", body, **{"Content-Encoding": "gzip"})
        assert await error_of(refused) == (415, "content_encoding")


async def test_slow_body_times_out(node, nothing_written, monkeypatch):
    monkeypatch.setattr(bodies, "BODY_TIMEOUT_S", 0.3)

    async def stalling():
        yield b"FF\x01B"
        await asyncio.sleep(600)
        yield b"never"

    headers = {"Authorization": f"Bearer {node.token}"}
    async with node.client.post(
        "/api/v1/batches", data=stalling(), headers=headers, timeout=ClientTimeout(300)
    ) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (408, "too_slow")


async def test_body_that_breaks_off(node, client, nothing_written):
    _, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(
        b"POST /api/v1/batches HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
        + f"Authorization: Bearer {node.token}\r\n\r\n".encode()
        + b"FF\x01B only the beginning"
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()

    assert (await client.get("/healthz")).status == 200


AUTHORIZATIONS = (
    None,
    "",
    "Bearer",
    "Bearer ",
    "Bearer ffn_unknown",
    "Bearer " + "x" * 5000,
    "Basic d2ViLTE6cGFzcw==",
    "Bearer \xff\xfe",
)


@pytest.mark.parametrize("path", PATHS)
async def test_wrong_token(client, node, stack_of, error_of, nothing_written, path):
    body = good_body(node, path, stack_of)
    for authorization in AUTHORIZATIONS:
        headers = {} if authorization is None else {"Authorization": authorization}
        refused = await error_of(client.post(path, data=body, headers=headers))
        assert refused == (401, "unknown_token"), authorization


@pytest.mark.parametrize("path", PATHS)
async def test_token_of_another_node(new_node, node, stack_of, error_of, nothing_written, path):
    other = new_node("web-2")
    body = good_body(node, path, stack_of)

    assert await error_of(other.post(path, body)) == (403, "wrong_node")


@pytest.mark.parametrize("path", PATHS)
async def test_get_is_not_allowed(client, error_of, path):
    assert await error_of(client.get(path)) == (405, "method_not_allowed")


async def test_unknown_path(client, error_of):
    assert await error_of(client.post("/api/v1/nothing")) == (404, "not_found")


async def test_other_message_on_the_batch_path(node, error_of, nothing_written):
    extract = SymbolExtract("web-1", 0, b"\x01" * 20, "libc", b"")

    assert await error_of(node.post("/api/v1/batches", extract)) == (400, "malformed")


OVERHEAD = Overhead(10, 20, 30, 40, 30 << 20, 12 << 20, 0.25, 0.5)
EVENT = Event(1, "governor", "cpu", "99 Hz -> 19 Hz")
WRONG_BATCHES = {
    "run too short": ({"run": b"123"}, 400, "malformed"),
    "sequence 0": ({"sequence": 0}, 400, "malformed"),
    "sequence negative": ({"sequence": -1}, 400, "malformed"),
    "sequence huge": ({"sequence": 2**40}, 422, "bad_value"),
    "rate 0": ({"rate_millihertz": 0}, 400, "malformed"),
    "duration 0": ({"duration_ns": 0}, 400, "malformed"),
    "no cpus": ({"online_cpus": 0}, 400, "malformed"),
    "hashes misaligned": ({"stack_hashes": bytes(17)}, 400, "malformed"),
    "hashes too few": ({"stack_hashes": b""}, 400, "malformed"),
    "counts too many": ({"counts": bytes(8)}, 400, "malformed"),
    "series_index missing": ({"series_index": b""}, 400, "malformed"),
    "series out of range": ({"series_index": b"\x01\0\0\0"}, 422, "bad_value"),
    "no series": ({"series": []}, 422, "bad_value"),
    "count 0": ({"counts": bytes(4)}, 422, "bad_value"),
    "more CPU than there was": ({"counts": b"\xff" * 4, "rate_millihertz": 1}, 422, "bad_value"),
    "lost negative": ({"lost": {"x": -1}}, 400, "malformed"),
    "lost huge": ({"lost": {"x": 2**63 - 1, "y": 2**63 - 1}}, 422, "bad_value"),
    "version too long": ({"agent_version": "1" * 1000}, 422, "bad_value"),
    "memory huge": (
        {"overhead": msgspec.structs.replace(OVERHEAD, memory_bytes=2**63)},
        422,
        "bad_value",
    ),
    "time negative": (
        {"overhead": msgspec.structs.replace(OVERHEAD, kernel_cpu_ns=-1)},
        422,
        "bad_value",
    ),
    "percent NaN": (
        {"overhead": msgspec.structs.replace(OVERHEAD, cpu_percent=float("nan"))},
        422,
        "bad_value",
    ),
    "percent infinite": (
        {"overhead": msgspec.structs.replace(OVERHEAD, cpu_percent=float("inf"))},
        422,
        "bad_value",
    ),
    "start 1970": ({"start_ns": 1}, 422, "out_of_time"),
    "start 2100": ({"start_ns": 4_102_444_800 * 10**9}, 503, "clocks_apart"),  # whose clock?
    "node empty": ({"node": ""}, 403, "wrong_node"),
    "node with NUL": ({"node": "web-1\0"}, 403, "wrong_node"),
}


async def test_wrong_batches(node, stack_of, error_of, nothing_written):
    refused = {}
    for case, (changes, *_) in WRONG_BATCHES.items():
        batch = node.batch({stack_of(1): 1}, **changes)
        refused[case] = await error_of(node.post("/api/v1/batches", batch))

    assert refused == {case: (status, code) for case, (_, status, code) in WRONG_BATCHES.items()}


GOOD_EVENT = msgspec.structs.replace(EVENT, at_ns=time.time_ns())
# What is changed of a batch, and what that costs by reason: its samples are stored all the same.
WRONG_PARTS = {
    "label with NUL": ({"series": [Series({"service": "demo", "a": "b\0c"})]}, {"label": 1}),
    "label too long": ({"series": [Series({"service": "demo", "a": "b" * 600})]}, {"label": 1}),
    "label without name": ({"series": [Series({"service": "demo", "": "b"})]}, {"label": 1}),
    "too many labels": (
        {"series": [Series({**{f"l{i}": "" for i in range(40)}, "service": "demo"})]},
        {"label": 9},
    ),
    "fact with NUL": ({"facts": {"kernel": "6\0", "mode": "core"}}, {"fact": 1}),
    "too many facts": ({"facts": {str(i): "" for i in range(100)}}, {"fact": 36}),
    "too many events": ({"events": [GOOD_EVENT] * 70}, {"event_too_many": 6}),
    "event with NUL": (
        {"events": [GOOD_EVENT, msgspec.structs.replace(EVENT, words="a\0b")]},
        {"event": 1},
    ),
    "event words too long": (
        {"events": [msgspec.structs.replace(EVENT, words="w" * 600)]},
        {"event": 1},
    ),
    "event value infinite": (
        {"events": [msgspec.structs.replace(EVENT, value=float("inf"))]},
        {"event": 1},
    ),
    "event before time": ({"events": [msgspec.structs.replace(EVENT, at_ns=-1)]}, {"event": 1}),
    "event of another year": ({"events": [EVENT]}, {"event_out_of_time": 1}),
    "end of no word": ({"stack_ends": {"No rows": bytes(4)}}, {"stack_end": 1}),
    "ends of too many series": ({"stack_ends": {"complete": bytes(8)}}, {"stack_end": 1}),
    "too many ends": ({"python_ends": {f"end_{i}": bytes(4) for i in range(20)}}, {"stack_end": 4}),
    "more ends than samples": ({"stack_ends": {"complete": b"\x02\0\0\0"}}, {"stack_end": 1}),
}


@pytest.mark.parametrize(("changes", "dropped"), WRONG_PARTS.values(), ids=WRONG_PARTS)
async def test_what_is_wrong_with_a_part_of_a_batch_costs_that_part(
    node, stack_of, app, rows, client, changes, dropped
):
    batch = node.batch({stack_of(1): 1}, **changes)
    headers = {"Accept": SHORT_TYPE}
    async with await node.post("/api/v1/batches", batch, **headers) as response:
        answer = decode(await response.read(), Answer)

    assert answer.status == "stored"
    assert (await node.send(batch)).status == "duplicate"
    # Labels that are not those that the node sent have no number that it might use for them.
    assert (answer.series_numbers == bytes(4)) == ("label" in dropped)
    assert answer.stack_numbers != bytes(4)
    assert rows("SELECT sum(samples)::int, count(*)::int FROM node_prof") == [(1, 1)]
    assert rows("SELECT service FROM series") == [("demo",)]
    await app[INGEST].refusals.write()
    refused = (await (await client.get("/api/v1/nodes")).json())["nodes"][0]["refused"]
    assert {reason: each["count"] for reason, each in refused.items()} == dropped


async def test_wrong_types_in_a_batch(node, stack_of, error_of, nothing_written):
    fields = msgspec.structs.asdict(node.batch({stack_of(1): 1}))
    for field in Batch.__struct_fields__:
        body = msgspec.msgpack.encode({**fields, field: {"wrong": ["type"]}})
        request = node.post("/api/v1/batches", b"FF\x01B" + zstandard.compress(body))
        assert await error_of(request) == (400, "malformed"), field


async def test_refusals_are_counted_by_reason(node, client, error_of):
    await error_of(node.post("/api/v1/batches", b"nonsense"))
    await error_of(client.post("/api/v1/batches", data=b""))

    metrics = await (await client.get("/metrics")).text()
    assert 'flamefleet_refused_total{reason="malformed"} 1.0' in metrics
    assert 'flamefleet_refused_total{reason="unknown_token"} 1.0' in metrics
    assert 'flamefleet_batches_total{result="refused"} 2.0' in metrics


@pytest.mark.parametrize("path", PATHS)
async def test_damaged_content_is_never_a_defect(node, stack_of, path, still_serves):
    if path == "/api/v1/definitions":
        await node.send(node.batch({stack_of(1): 1}))
    good = good_body(node, path, stack_of)
    content = zstandard.decompress(good[4:])
    random = Random(20261122)
    statuses = set()

    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(random.randint(1, 3)):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        body = good[:4] + zstandard.compress(bytes(damaged))
        async with await node.post(path, body) as response:
            said = await response.read()
            # A time that is damaged may be one of a clock that is wrong: such a batch is kept.
            is_kept = response.status == 503 and b'"code": "clocks_apart"' in said
            assert response.status < 500 or is_kept, (said, bytes(damaged))
            statuses.add(response.status)

    assert statuses & {400, 403, 422}
    node.run = os.urandom(16)
    await still_serves()
