"""Definitions ahead of their batch, from the real shipper and from hostile nodes."""

import asyncio
from array import array
from itertools import accumulate, pairwise

import msgspec
import pytest

from aggregator.app_keys import INGEST
from aggregator.ingest.ahead import AheadOfBatches
from node_agent.shipper.client import Client
from wire.codec import DEFINITIONS_VERSION, SHORT_TYPE, decode, encode
from wire.hashes import definitions_check
from wire.packed import PackedModule, Stack, pack
from wire.schema import Answer, Module, ModuleKind, Name
from wire.short import to_planes

PER_BATCH = 12


@pytest.fixture
def requests(monkeypatch):
    """What the shipper sends, in order: "whole", "short" or "definitions"."""
    sent = []
    post = Client.post

    def note(self, path, body, accept=""):
        body.seek(0)
        is_short = body.read(3) == b"FF\2"
        is_batch = path == "/api/v1/batches"
        sent.append(("short" if is_short else "whole") if is_batch else "definitions")
        return post(self, path, body, accept)

    monkeypatch.setattr(Client, "post", note)
    return sent


@pytest.fixture
def fill(spool, node, stack_of):
    """fill(numbers): a batch of one well-known stack and of PER_BATCH others for each number, with
    definitions of what no batch before had."""

    def put(numbers):
        for number in numbers:
            stacks = [stack_of(number * PER_BATCH + n) for n in range(PER_BATCH)]
            batch = node.batch(dict.fromkeys([stack_of(10_000), *stacks], 10**number))
            new = [stack_of(10_000), *stacks] if number == 0 else stacks
            spool.put_batch(batch, node.definitions(new))

    return put


def packed_of(node, stacks, *, ahead=True, **changes):
    """Definitions of version 2; `changes` replace fields."""
    whole = node.definitions(stacks)
    edges = pairwise([0, *accumulate(map(len, stacks))])
    hashes = [whole.stack_hashes[at : at + 16] for at in range(0, len(whole.stack_hashes), 16)]
    parts = [Stack(one, *edge) for one, edge in zip(hashes, edges, strict=True)]
    return msgspec.structs.replace(pack(whole, parts, ahead=ahead), **changes)


async def define_ahead(node, stacks):
    async with await node.post("/api/v1/definitions", packed_of(node, stacks)) as response:
        assert response.status == 200, await response.text()
        return decode(await response.read(), Answer)


async def test_definitions_go_ahead_where_what_is_new_is_new_to_the_centre(
    deliver, spool, shipper_to, client, rows, requests, fill
):
    fill(range(4))

    await deliver(shipper_to(client.port))

    assert requests == ["whole", "definitions"] + ["definitions", "short"] * 3
    assert rows("SELECT samples::int FROM node_prof ORDER BY part") == [
        ((PER_BATCH + 1) * 10**number,) for number in range(4)
    ]
    stacks = 4 * PER_BATCH + 1
    assert rows("SELECT count(*)::int, count(frames)::int FROM stacks") == [(stacks, stacks)]
    metrics = await (await client.get("/metrics")).text()
    assert f"flamefleet_stacks_defined_total {stacks}.0" in metrics
    assert 'flamefleet_dropped_total{reason="definition_not_wanted"} 0.0' in metrics


async def test_a_new_shipper_begins_with_the_batch(
    deliver, spool, shipper_to, client, rows, requests, fill
):
    fill(range(2))
    await deliver(shipper_to(client.port))
    requests.clear()
    fill(range(2, 4))

    await deliver(shipper_to(client.port))

    assert requests == ["whole", "definitions", "definitions", "short"]
    assert spool.dropped == {}


async def test_what_another_node_has_defined_is_not_sent(
    deliver, spool, shipper_to, new_node, stack_of, client, requests, fill, rows
):
    other = new_node("web-2")
    stacks = [stack_of(number) for number in [*range(4 * PER_BATCH), 10_000]]
    await other.send(other.batch(dict.fromkeys(stacks, 1)))
    await other.define(stacks)
    fill(range(4))

    await deliver(shipper_to(client.port))

    assert requests == ["whole"] + ["short"] * 3
    assert rows("SELECT nodes.name FROM stacks JOIN nodes ON nodes.id = defined_by GROUP BY 1") == [
        ("web-2",)
    ]


async def test_a_shipper_that_ends_between_definitions_and_batch_loses_and_doubles_nothing(
    deliver, spool, shipper_to, client, rows, requests, fill, monkeypatch
):
    fill(range(1))
    shipper = shipper_to(client.port)
    await deliver(shipper)
    fill(range(1, 3))
    post = Client.post

    def end(self, path, body, accept=""):
        if path == "/api/v1/batches":
            raise KeyboardInterrupt
        return post(self, path, body, accept)

    monkeypatch.setattr(Client, "post", end)
    # A thread of the pool would end the loop with it.
    ended = await asyncio.to_thread(ends_with_interrupt, shipper.step)
    assert ended
    monkeypatch.setattr(Client, "post", post)
    assert requests[-1] == "definitions"
    stacks = 2 * PER_BATCH + 1
    assert rows("SELECT count(*)::int, count(frames)::int FROM stacks") == [(stacks, stacks)]

    await deliver(shipper_to(client.port))

    stacks = 3 * PER_BATCH + 1
    assert rows("SELECT count(*)::int, count(frames)::int FROM stacks") == [(stacks, stacks)]
    assert rows("SELECT samples::int FROM node_prof ORDER BY part") == [
        ((PER_BATCH + 1) * 10**number,) for number in range(3)
    ]


def ends_with_interrupt(step):
    try:
        step()
    except KeyboardInterrupt:
        return True
    return False


async def test_answers_tell_who_asks_that_definitions_may_go_ahead(node, stack_of):
    batch = node.batch({stack_of(1): 1})
    async with await node.post("/api/v1/batches", batch, Accept=SHORT_TYPE) as response:
        assert decode(await response.read(), Answer).definitions == DEFINITIONS_VERSION
    assert (await node.send(node.batch({stack_of(1): 1}))).definitions == 0


async def test_definitions_ahead_are_told_their_numbers(node, stack_of, stack_hash_of, rows):
    stacks = [stack_of(1), stack_of(2)]
    for defined in (2, 0):
        answer = await define_ahead(node, stacks)
        ids = dict(rows("SELECT replace(hash::text, '-', ''), id::int FROM stacks"))
        hashes = sorted(map(stack_hash_of, stacks))
        assert list(array("I", answer.stack_numbers)) == [ids[one.hex()] for one in hashes]
        assert answer.defined == defined
    # Others are no reason to keep what no batch has brought.
    await node.define([stack_of(3)])
    assert rows("SELECT count(*)::int FROM stacks") == [(2,)]


async def test_whoever_lies_about_a_hash_gets_no_number_and_leaves_no_row(
    node, new_node, stack_of, stack_hash_of, error_of, rows
):
    """A stack of its own under another's hash; another's frames under a hash of its own; frames
    that somebody else's stack has not."""
    await define_ahead(new_node("web-2"), [stack_of(1)])
    before = rows("SELECT id, hash, frames, defined_by FROM stacks")
    others = packed_of(node, [stack_of(2)])
    lies = [
        packed_of(node, [stack_of(2)], check=definitions_check([stack_hash_of(stack_of(1))])),
        packed_of(node, [stack_of(1)], check=definitions_check([bytes(16)])),
        packed_of(node, [stack_of(1)], offsets=others.offsets),
        packed_of(node, [stack_of(1)], modules=[PackedModule(0, b"\x09" * 20, "demo")]),
    ]
    for lie in lies:
        refused = await error_of(node.post("/api/v1/definitions", lie))
        assert refused == (400, "malformed")
    assert rows("SELECT id, hash, frames, defined_by FROM stacks") == before
    assert rows("SELECT count(*)::int FROM modules") == [(1,)]


async def test_broken_definitions_are_refused_and_leave_no_row(
    node, new_node, stack_of, error_of, rows
):
    stacks = [stack_of(n) for n in range(50)]
    good = packed_of(node, stacks)
    body = encode(good)
    broken = {
        "run": (packed_of(node, stacks, run=b"short"), (422, "bad_value")),
        "too many": (packed_of(node, stacks, shared=bytes(4 * 4097)), (413, "too_large")),
        "too deep": (packed_of(node, stacks, rest=to_planes([257] * 50)), (400, "malformed")),
        "no frames": (packed_of(node, stacks, frames=b""), (400, "malformed")),
        "no module": (packed_of(node, stacks, modules=[]), (400, "malformed")),
        "another node": (packed_of(new_node("web-2"), stacks), (403, "wrong_node")),
        "version 3": (body[:2] + b"\3" + body[3:], (415, "unsupported_version")),
        **{
            f"cut at {length}": (body[:length], (400, "malformed"))
            for length in range(0, len(body), 37)
        },
    }
    for case, (message, refused) in broken.items():
        assert await error_of(node.post("/api/v1/definitions", message)) == refused, case
    assert rows("SELECT (SELECT count(*) FROM stacks) + (SELECT count(*) FROM modules)") == [(0,)]
    await define_ahead(node, stacks)


async def test_packed_definitions_behind_their_batch_are_stored_where_wanted(node, stack_of, rows):
    await node.send(node.batch({stack_of(1): 1}))
    body = packed_of(node, [stack_of(1), stack_of(2)], ahead=False)
    async with await node.post("/api/v1/definitions", body) as response:
        assert (response.status, await response.read()) == (204, b"")
    assert rows("SELECT count(*)::int, count(frames)::int FROM stacks") == [(1, 1)]


async def test_both_versions_store_the_same(node, stack_of, rows):
    """Stacks that share frames, and one with names, of several modules."""
    python = Module(ModuleKind.NAMED, b"[python]", "[python]")
    kernel = Module(ModuleKind.KERNEL, b"\x02" * 20, "vmlinux")
    named = tuple((python, Name(f"f{n}", "app.py", n)) for n in range(3))
    stacks = [stack_of(1), stack_of(1)[:2], named, (*stack_of(2), *named, (kernel, 2**64 - 8))]
    await node.send(node.batch(dict.fromkeys(stacks, 1)))
    query = (
        'SELECT kind, build_id, modules.name, "offset", function, file, line, resolved '
        'FROM frames JOIN modules ON modules.id = module_id ORDER BY kind, build_id, "offset"'
    )
    stored = []
    for body in (node.definitions(stacks), packed_of(node, stacks, ahead=False)):
        rows("UPDATE stacks SET frames = NULL")
        async with await node.post("/api/v1/definitions", body) as response:
            assert response.status == 204, await response.text()
        stored.append((rows("SELECT hash, frames FROM stacks ORDER BY hash"), rows(query)))
    assert stored[0] == stored[1]
    assert None not in [frames for _, frames in stored[1][0]]


async def test_a_node_that_only_defines_is_stopped_until_it_sends_a_batch(
    node, new_node, stack_of, error_of, app, rows, client
):
    app[INGEST].ahead = AheadOfBatches(most=10)
    await define_ahead(node, [stack_of(n) for n in range(9)])
    body = packed_of(node, [stack_of(100), stack_of(101)])

    refused = await error_of(node.post("/api/v1/definitions", body))

    assert refused == (422, "too_far_ahead")
    assert rows("SELECT count(*)::int FROM stacks") == [(9,)]
    await define_ahead(new_node("web-2"), [stack_of(100)])  # others are not stopped
    await node.define([stack_of(100)])  # nor what is wanted
    await node.send(node.batch({stack_of(100): 1}))
    await define_ahead(node, [stack_of(100), stack_of(101)])


async def test_a_shipper_that_is_refused_sends_the_batch_first(
    deliver, spool, shipper_to, client, app, rows, requests, fill
):
    app[INGEST].ahead = AheadOfBatches(most=3)
    fill(range(4))

    await deliver(shipper_to(client.port))

    assert requests == [
        *("whole", "definitions"),
        *("definitions", "short", "definitions"),  # refused, and wanted
        *("short", "definitions"),
        *("short", "definitions"),
    ]
    stacks = 4 * PER_BATCH + 1
    assert rows("SELECT count(*)::int, count(frames)::int FROM stacks") == [(stacks, stacks)]
    assert rows("SELECT count(*)::int FROM node_prof") == [(4,)]
    assert spool.dropped == {}
