"""Batches in their short form (wire version 2), from the real shipper and from hostile nodes."""

from array import array

import msgspec
import pytest
from aiohttp.test_utils import TestServer, unused_port

from aggregator.app import create_app
from aggregator.profiles.codec import decode_sections
from node_agent.shipper.client import Client
from wire.codec import SHORT_TYPE, decode, encode
from wire.hashes import batch_check, batch_digest, labels_hash
from wire.schema import Answer, Event, Series
from wire.short import Numbers, shorten, to_planes

LABELS = ({"service": "web", "executable": "nginx"}, {"service": "db"})


def u32(*values):
    return array("I", values).tobytes()


@pytest.fixture
def batch_of(node, stack_of, stack_hash_of):
    """Makes the next batch: stacks 1 to 4 in two series, `count` samples each row."""

    def make(count, **changes):
        hashes = b"".join(stack_hash_of(stack_of(n)) for n in (3, 1, 2, 4, 1))
        columns = {
            "series": [Series(labels) for labels in LABELS],
            "stack_hashes": hashes,
            "series_index": u32(0, 0, 0, 1, 1),
            "counts": u32(*[count] * 5),
            "stack_ends": {"complete": u32(3 * count - 1, count), "no_rows": u32(1, 0)},
            "python_ends": {"complete": u32(0, 1)},
            "rate_millihertz": 99_000,
        }
        return node.batch({}, **{**columns, **changes})

    return make


@pytest.fixture
def learn(node, batch_of):
    """Sends a whole batch, and returns the numbers of its answer."""

    async def learn():
        batch = batch_of(1)
        headers = {"Accept": SHORT_TYPE}
        async with await node.post("/api/v1/batches", batch, **headers) as response:
            assert response.status == 200, await response.text()
            answer = decode(await response.read(), Answer)
        hashes = sorted({batch.stack_hashes[at : at + 16] for at in range(0, 80, 16)})
        stacks = dict(zip(hashes, array("I", answer.stack_numbers), strict=True))
        labels = dict(zip(map(labels_hash, LABELS), array("I", answer.series_numbers), strict=True))
        return Numbers(stacks, labels)

    return learn


def short_of(batch, numbers):
    return shorten(batch, batch_digest(batch), numbers)


async def send_short(node, short):
    async with await node.post("/api/v1/batches", short) as response:
        assert response.status == 200, await response.text()
        return decode(await response.read(), Answer)


async def test_a_short_batch_is_stored_like_the_whole_one(node, batch_of, learn, rows):
    numbers = await learn()
    event = Event(batch_of(1).start_ns, "governor", "cpu", "99 Hz -> 49 Hz", 1.5, 1.0)
    node.sequence = 1
    whole = batch_of(7, events=[event], lost={"ring_full": 3})
    short = msgspec.structs.replace(short_of(whole, numbers), sequence=3)
    assert (await node.send(whole)).status == "stored"

    assert (await send_short(node, short)).status == "stored"

    kept = rows("SELECT samples, lost, weight_ns, data, stack_ends FROM node_prof ORDER BY part")
    assert len(kept) == 3
    assert kept[1][0] == 35
    assert kept[1] == kept[2]
    assert sorted(s.counts.sum() for s in decode_sections(bytes(kept[2][3]))) == [14, 21]
    details = rows("SELECT cpu_percent, memory_bytes, detail FROM node_overhead")
    assert len(set(map(str, details[1:]))) == 1
    assert rows("SELECT DISTINCT words FROM agent_events") == [("99 Hz -> 49 Hz",)]
    assert rows("SELECT agent_version, facts FROM nodes") == [("0.1.0", {"kernel": "6.18.0"})]


async def test_both_forms_of_a_batch_are_one_batch(node, batch_of, learn, rows):
    numbers = await learn()
    first, second = batch_of(3), batch_of(5)
    assert (await send_short(node, short_of(first, numbers))).status == "stored"
    assert (await node.send(first)).status == "duplicate"
    assert (await node.send(second)).status == "stored"
    assert (await send_short(node, short_of(second, numbers))).status == "duplicate"
    assert (await send_short(node, short_of(first, numbers))).status == "duplicate"

    assert rows("SELECT sum(samples)::int, count(*)::int FROM node_prof") == [(45, 3)]


async def test_what_has_no_number_is_sent_in_full_and_gets_one(
    node, batch_of, learn, stack_hash_of, stack_of
):
    numbers = await learn()
    known = stack_hash_of(stack_of(1))
    few = Numbers({known: numbers.stacks[known]}, {})
    await node.define([stack_of(2)])

    answer = await send_short(node, short_of(batch_of(2), few))

    missing = sorted(numbers.stacks.keys() - {known})
    assert list(array("I", answer.stack_numbers)) == [numbers.stacks[one] for one in missing]
    assert list(array("I", answer.series_numbers)) == list(numbers.labels.values())
    wanted = {stack_hash_of(stack_of(n)) for n in (1, 3, 4)}  # numbers or not: still undefined
    assert {answer.want[at : at + 16] for at in range(0, len(answer.want), 16)} == wanted


async def test_who_does_not_ask_is_told_no_numbers(node, batch_of):
    answer = await node.send(batch_of(1))
    assert (answer.stack_numbers, answer.series_numbers) == (b"", b"")


def _step(short, values):
    return msgspec.structs.replace(short, numbers=to_planes(values))


def _swap_labels(short, numbers):
    return msgspec.structs.replace(short, series=short.series[::-1])


def _guess(short, numbers):
    """A node that does not know the hash behind a number cannot make the check for it."""
    check = batch_check(short.digest, map(labels_hash, LABELS), [bytes(16)] * 5)
    return msgspec.structs.replace(short, check=check)


WRONG = {
    "number of no stack": (lambda s, n: _step(s, [2**31, 1, 1, 1, 1]), 422, "unknown_number"),
    "number of another stack": (
        lambda s, n: msgspec.structs.replace(
            s,
            numbered_rows=to_planes([2, 0]),
            hashed_rows=to_planes([0, 0]),
            numbers=to_planes([1, 2]),
            numbered_counts=to_planes([1, 1]),
        ),
        422,
        "unknown_number",
    ),
    "labels of another series": (_swap_labels, 422, "unknown_number"),
    "number of no labels": (
        lambda s, n: msgspec.structs.replace(s, series=[2**31, s.series[1]]),
        422,
        "unknown_number",
    ),
    "number of labels negative": (
        lambda s, n: msgspec.structs.replace(s, series=[-1, s.series[1]]),
        422,
        "unknown_number",
    ),
    "number of labels huge": (
        lambda s, n: msgspec.structs.replace(s, series=[2**63, s.series[1]]),
        422,
        "unknown_number",
    ),
    "guessed": (_guess, 422, "unknown_number"),
    "check of nothing": (
        lambda s, n: msgspec.structs.replace(s, check=bytes(8)),
        422,
        "unknown_number",
    ),
    "wrong order": (lambda s, n: _step(s, [3, 2**32 - 1, 2**32 - 1, 1, 1]), 422, "bad_value"),
    "number 0": (lambda s, n: _step(s, [0, 1, 1, 1, 1]), 422, "bad_value"),
    "planes cut": (
        lambda s, n: msgspec.structs.replace(s, numbers=s.numbers[:-1]),
        400,
        "malformed",
    ),
    "too few counts": (
        lambda s, n: msgspec.structs.replace(s, numbered_counts=to_planes([1])),
        400,
        "malformed",
    ),
    "hashes cut": (lambda s, n: msgspec.structs.replace(s, hashes=bytes(15)), 400, "malformed"),
    "too many rows in a series": (
        lambda s, n: msgspec.structs.replace(s, numbered_rows=to_planes([2**32 - 1] * 2)),
        400,
        "malformed",
    ),
    "rows of no series": (
        lambda s, n: msgspec.structs.replace(s, numbered_rows=to_planes([3, 1, 1])),
        400,
        "malformed",
    ),
    "digest short": (lambda s, n: msgspec.structs.replace(s, digest=b"1"), 400, "malformed"),
    "ends of too many series": (
        lambda s, n: msgspec.structs.replace(s, stack_ends={"complete": to_planes([0] * 3)}),
        400,
        "malformed",
    ),
    "count 0": (
        lambda s, n: msgspec.structs.replace(s, numbered_counts=to_planes([0] * 5)),
        422,
        "bad_value",
    ),
    "another node": (lambda s, n: msgspec.structs.replace(s, node="web-2"), 403, "wrong_node"),
    "from last year": (lambda s, n: msgspec.structs.replace(s, start_ns=1), 422, "out_of_time"),
}


async def test_wrong_short_batches_are_refused_and_nothing_of_them_is_stored(
    node, batch_of, learn, rows, error_of, client
):
    numbers = await learn()

    def stored():
        return rows(
            "SELECT (SELECT count(*) FROM stacks), (SELECT count(*) FROM series), "
            "(SELECT max(high_water) FROM runs), (SELECT sum(samples) FROM node_prof)"
        )

    for name, (change, status, code) in WRONG.items():
        batch, before = batch_of(9), stored()
        short = change(short_of(batch, numbers), numbers)
        refused = await error_of(node.post("/api/v1/batches", short))
        assert refused == (status, code), name
        assert stored() == before, name
        # The same batch whole, and a good short one behind it.
        assert (await node.send(batch)).status == "stored", name
        assert (await send_short(node, short_of(batch_of(1), numbers))).status == "stored", name
    metrics = await (await client.get("/metrics")).text()
    unknown = sum(code == "unknown_number" for _, _, code in WRONG.values())
    assert f'flamefleet_batches_total{{result="wanted_whole"}} {unknown}.0' in metrics


async def test_a_short_batch_cut_anywhere_is_refused(node, batch_of, learn, error_of, rows):
    body = encode(short_of(batch_of(9), await learn()))
    for length in range(0, len(body), 7):
        status, code = await error_of(node.post("/api/v1/batches", body[:length]))
        assert (status, code) == (400, "malformed")
    assert rows("SELECT count(*)::int FROM node_prof") == [(1,)]


# The real shipper


@pytest.fixture
def bodies(monkeypatch):
    """What the shipper sends as batches, in order; True for a short one."""
    sent = []
    post = Client.post

    def note(self, path, body, accept=""):
        if path == "/api/v1/batches":
            body.seek(0)
            sent.append(body.read(3) == b"FF\2")
        return post(self, path, body, accept)

    monkeypatch.setattr(Client, "post", note)
    return sent


async def test_the_shipper_sends_short_batches_once_it_has_numbers(
    deliver, spool, shipper_to, batch_of, client, rows, bodies, node, stack_of
):
    for count in (1, 10, 100):
        batch = batch_of(count)
        spool.put_batch(batch, node.definitions([stack_of(n) for n in (1, 2, 3, 4)]))
    shipper = shipper_to(client.port)

    await deliver(shipper)

    assert bodies == [False, True, True]
    assert rows("SELECT samples::int FROM node_prof ORDER BY part") == [(5,), (50,), (500,)]
    assert rows("SELECT count(*)::int, count(frames)::int FROM stacks") == [(4, 4)]
    # Another process has no numbers: it begins with a whole one.
    spool.put_batch(batch_of(1000), None)
    await deliver(shipper_to(client.port))
    assert bodies == [False, True, True, False]
    assert spool.dropped == {}


async def test_a_centre_whose_numbers_changed_gets_the_batch_whole(
    deliver, spool, shipper_to, batch_of, client, centre_config, rows, bodies
):
    shipper = shipper_to(client.port)
    for count in (1, 10):
        spool.put_batch(batch_of(count), None)
    await deliver(shipper)
    # As of a database that was made anew: other stacks have the numbers.
    rows("UPDATE stacks SET hash = gen_random_uuid()")
    server = TestServer(create_app(centre_config), port=unused_port())
    await server.start_server()
    shipper.client.close()
    shipper.client = shipper_to(server.port).client
    for count in (100, 1000):
        spool.put_batch(batch_of(count), None)

    await deliver(shipper)
    await server.close()

    assert bodies == [False, True, True, False, True]
    assert spool.dropped == {}
    assert shipper.report.status()["sent"] == {"batches": 4, "whole_again": 1}
    assert rows("SELECT samples::int FROM node_prof ORDER BY part") == [
        (5,),
        (50,),
        (500,),
        (5000,),
    ]
