"""Definitions over HTTP: frames are stored once, and no hash is believed."""

import asyncio
import struct
from itertools import accumulate, pairwise

import numpy as np
import pytest
from sqlalchemy import text

from aggregator.app_keys import INGEST
from aggregator.ingest.dictionary import MOST_REFUSALS
from wire.codec import decode
from wire.packed import Stack, pack
from wire.schema import Answer, Module, ModuleKind, Name

KERNEL = Module(ModuleKind.KERNEL, b"\x02" * 20, "vmlinux")
LIBC = Module(ModuleKind.NATIVE, b"\x03" * 20, "libc.so.6")
PYTHON = Module(ModuleKind.NAMED, b"[python]", "[python]")
MAIN = Name("main", "app.py", 7)
MIXED = ((LIBC, 4096), (PYTHON, MAIN), (PYTHON, Name("[jit]")), (KERNEL, 2**64 - 8))


def frame_rows(rows, stack_hash):
    """(module kind, unsigned offset, function, file, line, resolved) from the root."""
    [(packed,)] = rows(
        "SELECT frames FROM stacks WHERE uuid_send(hash) = :hash", hash=bytes(stack_hash)
    )
    ids = struct.unpack(f"<{len(packed) // 4}I", packed)
    found = {
        row[0]: (row[1], row[2] % 2**64, *row[3:])
        for row in rows(
            'SELECT frames.id, kind, "offset", function, file, line, resolved '
            "FROM frames JOIN modules ON modules.id = module_id"
        )
    }
    return [found[frame_id] for frame_id in ids]


async def test_definition_stores_modules_frames_and_stack(node, stack_hash_of, rows):
    await node.send(node.batch({MIXED: 1}))

    await node.define([MIXED])

    native, main, jit, kernel = frame_rows(rows, stack_hash_of(MIXED))
    assert native == (ModuleKind.NATIVE, 4096, None, None, None, False)
    assert main[0] == ModuleKind.NAMED
    assert main[2:] == ("main", "app.py", 7, True)
    assert jit[2:] == ("[jit]", None, None, True)
    assert kernel == (ModuleKind.KERNEL, 2**64 - 8, None, None, None, False)
    assert rows("SELECT kind, build_id, name, symbol_state FROM modules ORDER BY kind") == [
        (0, LIBC.id, "libc.so.6", "missing"),
        (1, KERNEL.id, "vmlinux", "missing"),
        (3, PYTHON.id, "[python]", "ready"),
    ]
    assert rows(
        "SELECT count(*)::int FROM module_nodes JOIN nodes ON nodes.id = node_id "
        "WHERE nodes.name = 'web-1'"
    ) == [(3,)]
    assert rows("SELECT nodes.name FROM stacks JOIN nodes ON nodes.id = defined_by") == [("web-1",)]


async def test_definition_sent_again_changes_nothing(node, new_node, stack_of, rows):
    stacks = [stack_of(i) for i in range(5)]
    await node.send(node.batch(dict.fromkeys(stacks, 1)))
    await node.define(stacks)
    before = rows("SELECT id, frames, defined_by, xmin::text FROM stacks ORDER BY id")

    await node.define(stacks)
    await new_node("web-2").define(stacks)

    assert rows("SELECT id, frames, defined_by, xmin::text FROM stacks ORDER BY id") == before
    assert rows("SELECT count(*)::int FROM frames") == [(15,)]


async def test_stacks_that_no_batch_brought_are_not_stored(node, stack_of, rows, client):
    await node.send(node.batch({stack_of(1): 1}))

    await node.define([stack_of(1), stack_of(2), MIXED])

    assert rows("SELECT count(*)::int, count(frames)::int FROM stacks") == [(1, 1)]
    assert rows("SELECT count(*)::int FROM modules") == [(1,)]
    metrics = await (await client.get("/metrics")).text()
    assert 'flamefleet_dropped_total{reason="definition_not_wanted"} 2.0' in metrics
    assert "flamefleet_stacks_defined_total 1.0" in metrics


async def test_definitions_of_several_nodes_at_once(new_node, stack_of, rows):
    nodes = [new_node(f"web-{i}") for i in range(6)]
    stacks = [stack_of(i % 40, depth=3 + i % 5) for i in range(120)]
    await nodes[0].send(nodes[0].batch(dict.fromkeys(stacks, 1)))

    orders = [stacks, stacks[::-1], stacks[60:] + stacks[:60]] * 2
    await asyncio.gather(*(n.define(order) for n, order in zip(nodes, orders, strict=True)))

    distinct = len(set(stacks))
    assert rows("SELECT count(*)::int, count(frames)::int FROM stacks") == [(distinct, distinct)]
    frames = len({frame for stack in stacks for frame in stack})
    assert rows("SELECT count(*)::int FROM frames") == [(frames,)]
    assert rows("SELECT octet_length(frames) / 4 FROM stacks ORDER BY 1") == sorted(
        (len(stack),) for stack in set(stacks)
    )


async def test_answer_asks_for_symbols_of_a_reported_module(node, rows):
    stack = ((LIBC, 4096),)
    await node.send(node.batch({stack: 1}))
    await node.define([stack])

    answer = await node.send(node.batch({stack: 1}))

    assert [(d.module_kind, d.build_id) for d in answer.directives] == [(0, LIBC.id)]
    assert (await node.send(node.batch({stack: 1}))).directives == []


async def test_symbols_are_looked_for_rarely_but_soon_after_a_report(node, app, rows):
    clock = [100.0]
    app[INGEST].directives._clock = lambda: clock[0]
    stack, later = ((LIBC, 4096),), ((KERNEL, 16),)

    async def asked():
        return [d.build_id for d in (await node.send(node.batch({stack: 1, later: 1}))).directives]

    await asked()
    await node.define([stack])
    assert await asked() == [LIBC.id]
    assert await asked() == []
    rows("UPDATE modules SET symbol_state = 'missing'")
    assert await asked() == []  # another process's news waits
    clock[0] += 31
    assert await asked() == [LIBC.id]
    assert await asked() == []
    await node.define([later])
    assert await asked() == [KERNEL.id]


def lie_about_hash(given):
    return {"stack_hashes": given.stack_hashes[:-1] + bytes([given.stack_hashes[-1] ^ 1])}


def swap_hashes(given):
    return {"stack_hashes": given.stack_hashes[16:] + given.stack_hashes[:16]}


def rename(given):
    return {"names": [Name("innocent", "app.py", 7), *given.names[1:]]}


def move_offset(given):
    return {"frame_offset": b"\x01" + given.frame_offset[1:]}


def change_build_id(given):
    return {"modules": [Module(given.modules[0].kind, b"\x09" * 20, "x"), *given.modules[1:]]}


# What each costs: stacks by reason. MIXED is the first of the two stacks.
LIES = {
    "hash": (lie_about_hash, {"stack_hash": 1}),
    "hashes swapped": (swap_hashes, {"stack_hash": 2}),
    "name": (rename, {"stack_hash": 1}),
    "offset": (move_offset, {"stack_hash": 1}),
    "build id": (change_build_id, {"stack_hash": 1}),
    "module index": (
        lambda d: {"frame_module": b"\xff" + d.frame_module[1:]},
        {"stack_module_index": 1},
    ),
    "frame index": (
        lambda d: {"stack_frames": d.stack_frames[:-4] + b"\xff" * 4},
        {"stack_frame_index": 1},
    ),
    "name missing": (lambda d: {"names": d.names[:1]}, {"stack_name_index": 1}),
    "name with NUL": (lambda d: {"names": [Name("a\0b"), *d.names[1:]]}, {"stack_name": 1}),
    "line negative": (lambda d: {"names": [Name("a", "b", -1), *d.names[1:]]}, {"stack_line": 1}),
    "line huge": (lambda d: {"names": [Name("a", "b", 2**40), *d.names[1:]]}, {"stack_line": 1}),
    "no modules": (lambda d: {"modules": []}, {"stack_module_index": 2}),
    "module with NUL": (
        lambda d: {"modules": [Module(0, b"\x01", "a\0b"), *d.modules[1:]]},
        {"stack_module_name": 1},
    ),
}


@pytest.mark.parametrize(("lie", "reasons"), LIES.values(), ids=LIES)
async def test_a_lie_costs_its_stack_alone(node, stack_of, rows, client, lie, reasons):
    stacks = [MIXED, stack_of(1)]
    batch = dict.fromkeys(stacks, 1)
    await node.send(node.batch(batch))

    async with await node.post(
        "/api/v1/definitions", node.definitions(stacks, **lie(node.definitions(stacks)))
    ) as response:
        assert response.status == 200
        answer = decode(await response.read(), Answer)

    assert answer.refused == reasons
    refused = sum(reasons.values())
    assert answer.defined == 2 - refused
    assert rows("SELECT count(*)::int, count(frames)::int FROM stacks") == [(2, 2 - refused)]
    metrics = await (await client.get("/metrics")).text()
    for reason, count in reasons.items():
        assert f'flamefleet_dropped_total{{reason="{reason}"}} {count}.0' in metrics
    if lie not in (lie_about_hash, swap_hashes):  # then those hashes are of nothing
        # It is not asked again for what it cannot give, and the next one may.
        assert (await node.send(node.batch(batch))).want == b""
        await node.define(stacks)
        assert rows("SELECT count(frames)::int FROM stacks") == [(2,)]


@pytest.mark.parametrize(
    "change",
    [
        {"stack_frames": bytes(4)},
        {"stack_lengths": b"\0\0\x03\0"},
        {"stack_lengths": b"\xff\xff\x03\0"},
        {"run": b"short"},
    ],
)
async def test_a_message_whose_stacks_cannot_be_told_apart_is_refused(
    node, stack_of, error_of, rows, change
):
    stacks = [MIXED, stack_of(1)]
    await node.send(node.batch(dict.fromkeys(stacks, 1)))

    body = node.definitions(stacks, **change)

    assert await error_of(node.post("/api/v1/definitions", body)) == (422, "bad_value")
    for table in ("modules", "module_nodes", "frames"):
        assert rows(f"SELECT count(*)::int FROM {table}") == [(0,)]


BAD = ((PYTHON, Name("busy", "pyline.py", 2**32 - 1)),)


async def refuse(node, stack):
    async with await node.post("/api/v1/definitions", node.definitions([stack])) as response:
        assert decode(await response.read(), Answer).refused == {"stack_line": 1}


async def test_a_refused_stack_is_wanted_of_other_nodes_only(
    node, new_node, stack_hash_of, app, client
):
    other = new_node("web-2")
    await node.send(node.batch({BAD: 1}))
    await refuse(node, BAD)

    assert (await node.send(node.batch({BAD: 1}))).want == b""
    assert (await other.send(other.batch({BAD: 1}))).want == stack_hash_of(BAD)
    await refuse(other, BAD)
    assert (await other.send(other.batch({BAD: 1}))).want == b""
    assert (await node.send(node.batch({BAD: 1}))).want == b""

    async def refused_of():
        nodes = (await (await client.get("/api/v1/nodes")).json())["nodes"]
        return {
            one["name"]: {reason: each["count"] for reason, each in one["refused"].items()}
            for one in nodes
        }

    await app[INGEST].refusals.write()
    assert await refused_of() == {"web-1": {"stack_line": 1}, "web-2": {"stack_line": 1}}


async def test_a_stack_refused_of_many_nodes_is_wanted_of_none(new_node):
    nodes = [new_node(f"web-{number}") for number in range(MOST_REFUSALS + 1)]
    for node in nodes[:-1]:
        assert (await node.send(node.batch({BAD: 1}))).want
        await refuse(node, BAD)

    assert (await nodes[-1].send(nodes[-1].batch({BAD: 1}))).want == b""


async def test_packed_definitions_with_a_wrong_name_cost_its_stack_alone(
    node, stack_of, stack_hash_of, rows
):
    stacks = [BAD, stack_of(1)]
    given = node.definitions(stacks)
    edges = pairwise(accumulate(map(len, stacks), initial=0))
    parts = [Stack(stack_hash_of(one), *edge) for one, edge in zip(stacks, edges, strict=True)]

    async with await node.post("/api/v1/definitions", pack(given, parts, ahead=True)) as response:
        answer = decode(await response.read(), Answer)

    assert answer.refused == {"stack_line": 1}
    assert answer.defined == 1
    numbers = np.frombuffer(answer.stack_numbers, "<u4").tolist()
    assert len(numbers) == 2 and all(numbers)  # the refused one has a number too
    assert rows("SELECT count(*)::int, count(frames)::int FROM stacks") == [(2, 1)]
    assert (await node.send(node.batch(dict.fromkeys(stacks, 1)))).want == b""


async def test_flamegraph_says_in_words_that_a_stack_was_refused(node, stack_of, client):
    good = stack_of(1)
    await node.send(node.batch({BAD: 19, good: 19}))
    await refuse(node, BAD)
    await node.define([good])

    async with client.get("/api/v1/flamegraph", params={"format": "folded"}) as response:
        lines = (await response.text()).splitlines()
    async with client.get("/api/v1/flamegraph") as response:
        coverage = (await response.json())["coverage"]

    assert f"demo;[refused] {10**9}" in lines
    assert len(lines) == 2
    assert not any("[undefined]" in line for line in lines)
    assert (coverage["refused_stacks"], coverage["undefined_stacks"]) == (1, 0)


async def test_definition_waits_for_another_one_and_goes_on(node, stack_of, database, rows):
    stack = stack_of(1)
    await node.send(node.batch({stack: 1}))

    with database.connect() as connection:
        connection.execute(text("SELECT id FROM stacks FOR UPDATE"))
        defining = asyncio.create_task(node.define([stack]))
        await asyncio.sleep(0.2)
        assert not defining.done()
        connection.rollback()
    await defining

    assert rows("SELECT count(frames)::int FROM stacks") == [(1,)]
