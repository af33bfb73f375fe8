"""A node that sends too much is told to wait; it loses nothing, and the others do not notice."""

from asyncio import to_thread
from dataclasses import replace

import pytest

from aggregator.app_keys import INGEST
from aggregator.config import CentreConfig, Quotas
from aggregator.ingest.quotas import BURST_S
from wire.schema import Module, ModuleKind, Name, SymbolExtract

KERNEL = Module(ModuleKind.KERNEL, b"\x02" * 20, "vmlinux")
FREE = Quotas(0, 0, 0, 0, 0, 0, 0)


@pytest.fixture
def quotas():
    """What is allowed; a test sets its own."""
    return FREE


@pytest.fixture
def centre_config(postgres_url, valkey_url, quotas):
    return CentreConfig(postgres_url, valkey_url, quotas=quotas)


@pytest.fixture
def clock(app):
    """The clock of quotas: set `now_s`."""

    class Clock:
        now_s = 1000.0

        def __call__(self):
            return self.now_s

    app[INGEST].quotas._clock = clock = Clock()
    return clock


def only(kind, at_once):
    """No quota but of `kind`: so much at once, and it comes back in BURST_S."""
    return replace(FREE, **{kind: at_once / BURST_S[kind]})


def many_rows(node, stack_of, round_):
    return node.batch({stack_of(number): 1 for number in range(20)})


def new_stacks(node, stack_of, round_):
    return node.batch({stack_of(100 * round_ + number): 1 for number in range(20)})


def new_labels(node, stack_of, round_):
    return node.batch({stack_of(1): 1}, {"service": f"s{round_}", "x": "y" * 500, "z": "y" * 500})


def much(node, stack_of, round_):
    return node.batch({stack_of(1): 1}, facts={"kernel": "x" * 400})


BATCHES = {
    "requests": (only("requests", 3), much),
    "megabytes": (only("megabytes", 0.0025), much),
    "rows": (only("rows", 60), many_rows),
    "new_stacks": (only("new_stacks", 60), new_stacks),
    "new_series": (only("new_series", 9), new_labels),
}


@pytest.mark.parametrize(("quotas", "kind"), [(q, k) for k, (q, _) in BATCHES.items()], ids=BATCHES)
async def test_batches_over_quota(new_node, stack_of, client, rows, app, clock, kind):
    make = BATCHES[kind][1]
    greedy, honest = new_node("web-1"), new_node("web-2")
    sent = 0
    while True:
        batch = make(greedy, stack_of, sent)
        async with await greedy.post("/api/v1/batches", batch) as response:
            if response.status != 200:
                error = (await response.json())["error"]
                break
        sent += 1
        assert sent < 20

    assert sent == 3
    assert (response.status, error["code"]) == (429, f"over_quota_{kind}")
    assert 1 <= int(response.headers["Retry-After"]) <= 600
    await honest.send(make(honest, stack_of, 0))
    await app[INGEST].refusals.write()
    assert rows(
        "SELECT name, reason, count::int FROM node_refusals JOIN nodes ON id = node_id"
    ) == [("web-1", f"over_quota_{kind}", 1)]
    metrics = await (await client.get("/metrics")).text()
    assert f'flamefleet_refused_total{{reason="over_quota_{kind}"}} 1.0' in metrics

    clock.now_s += int(response.headers["Retry-After"])
    await greedy.send(batch)


@pytest.mark.parametrize("quotas", [only("new_frames", 30)])
async def test_new_frames_over_quota(node, stack_of, error_of, clock, rows):
    def named(number):
        module = Module(ModuleKind.NAMED, b"python", "python")
        return tuple((module, Name(f"f{number}-{level}")) for level in range(20))

    stacks = [named(number) for number in range(3)]
    await node.send(node.batch(dict.fromkeys(stacks, 1)))
    await node.define(stacks[:1])
    await node.define(stacks[:1])  # nothing new
    await node.define(stacks[1:2])

    refused = node.post("/api/v1/definitions", node.definitions(stacks[2:]))
    assert await error_of(refused) == (429, "over_quota_new_frames")

    await node.send(node.batch({stack_of(1): 1}))  # batches bring none
    clock.now_s += 600
    await node.define(stacks[2:])
    assert rows("SELECT count(*)::int FROM stacks WHERE frames IS NULL") == [(1,)]


@pytest.mark.parametrize("quotas", [only("extract_megabytes", 0.0001)])
async def test_symbols_over_quota(node, stack_of, error_of, clock, rows):
    extract = SymbolExtract("web-1", KERNEL.kind, KERNEL.id, "vmlinux", bytes(range(256)) * 8)
    assert await error_of(node.post("/api/v1/symbols", extract)) == (422, "extract_unexpected")

    assert await error_of(node.post("/api/v1/symbols", extract)) == (
        429,
        "over_quota_extract_megabytes",
    )
    await node.send(node.batch({stack_of(1): 1}))


@pytest.mark.parametrize("quotas", [only("new_stacks", 10)])
async def test_the_shipper_waits_and_loses_nothing(
    spool, shipper_to, node, stack_of, client, rows, clock, quotas
):
    for number in range(12):
        stacks = {stack_of(10 * number + n): 1 for n in range(8)}
        spool.put_batch(node.batch(stacks), node.definitions(list(stacks)))
    shipper = shipper_to(client.port)
    waited = []

    for _ in range(200):
        if not spool.pending():
            break
        wait_s = await to_thread(shipper.step)
        if shipper.report.state == "waiting":
            assert "used up its new stacks" in shipper.report.status()["last_error"]["message"]
            waited.append(wait_s)
            clock.now_s += wait_s

    assert len(waited) >= 4
    assert all(1 <= wait_s <= 100 for wait_s in waited)
    assert (spool.pending(), spool.dropped) == ([], {})
    assert rows("SELECT count(*)::int, count(frames)::int FROM stacks") == [(96, 96)]
    assert rows("SELECT sum(samples)::int FROM node_prof") == [(96,)]
    assert rows("SELECT lost_batches::int FROM nodes") == [(0,)]
