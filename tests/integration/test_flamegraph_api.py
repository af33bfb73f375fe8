"""GET /api/v1/flamegraph on what real nodes sent."""

import asyncio
import shutil
import subprocess
import time

import pytest
from aiohttp.test_utils import TestClient, TestServer

from aggregator.app import create_app
from aggregator.config import CentreConfig
from wire.schema import Module, ModuleKind, Name, Series

KERNEL = Module(ModuleKind.KERNEL, b"\x02" * 20, "vmlinux")
APP = Module(ModuleKind.NATIVE, b"\x01" * 20, "app")
REBUILT = Module(ModuleKind.NATIVE, b"\x03" * 20, "app")
JIT = Module(ModuleKind.NAMED, b"[jit]", "[jit]")
MARKERS = Module(ModuleKind.NAMED, b"[unknown]", "[unknown]")
MAIN, WORK, READ = (APP, 0x1000), (APP, 0x1010), (KERNEL, 0x500)


@pytest.fixture
def ask(client):
    """The columnar answer to a question, checked for what always holds."""

    async def ask_centre(**parameters):
        async with client.get("/api/v1/flamegraph", params=parameters) as response:
            assert response.status == 200, await response.text()
            assert response.content_type == "application/json"
            answer = await response.json()
        nodes = answer["nodes"]
        assert len({len(column) for column in nodes.values()}) == 1
        assert nodes["parent"][0] == -1 and nodes["level"][0] == 0
        assert nodes["total"][0] == answer["total_ns"] == sum(nodes["self"])
        assert answer["kinds"][0] == "process"
        return answer

    return ask_centre


@pytest.fixture
def send_at(new_node):
    """Sends samples of a node as one batch that starts at a Unix time."""
    nodes = {}

    async def send(name, start_s, samples, labels=None, **changes):
        if name not in nodes:
            nodes[name] = new_node(name)
        node = nodes[name]
        answer = await node.send(
            node.batch(samples, labels, start_ns=int(start_s * 10**9), **changes)
        )
        assert answer.status == "stored"
        if answer.want:
            await node.define(list(samples))

    return send


def paths(answer):
    """{"service;function;...": self ns} and the kind of each function by name."""
    strings, functions, nodes = answer["strings"], answer["functions"], answer["nodes"]
    names = [strings[index] for index in functions["name"]]
    found, known = {}, []
    for function, parent, own in zip(
        nodes["function"], nodes["parent"], nodes["self"], strict=True
    ):
        path = [*known[parent], names[function]] if parent > 0 else [names[function]]
        known.append(path)
        if own:
            found[";".join(path)] = own
    kinds = {
        name: answer["kinds"][kind] for name, kind in zip(names, functions["kind"], strict=True)
    }
    return found, kinds


def minutes_ago(minutes):
    return time.time() // 60 * 60 - 60 * minutes


async def test_nothing_is_a_root_alone(ask):
    answer = await ask()
    assert answer["total_ns"] == 0
    assert answer["nodes"] == {
        "function": [0],
        "parent": [-1],
        "total": [0],
        "self": [0],
        "level": [0],
        "file": [-1],
        "line": [0],
    }
    assert answer["coverage"]["hosts"] == 0
    assert answer["coverage"]["samples"] == 0


async def test_shares_names_and_kinds(ask, send_at, rows):
    jit = (MAIN, (JIT, Name("[jit]")))
    await send_at(
        "web-1",
        minutes_ago(2),
        {(MAIN, WORK): 50, (MAIN, WORK, READ): 30, (MAIN,): 15, jit: 4},
        {"service": "shop"},
    )
    await send_at("web-1", minutes_ago(2) + 10, {((MARKERS, Name("[unmapped]")),): 1})
    rows("UPDATE frames SET function = 'main', resolved = true WHERE \"offset\" = 4096")
    rows("UPDATE frames SET function = 'ksys_read', resolved = true WHERE \"offset\" = 1280")

    answer = await ask()

    found, kinds = paths(answer)
    sample_ns = 10**9 / 19
    assert found == {
        "shop;main;app+0x1010": round(50 * sample_ns),
        "shop;main;app+0x1010;ksys_read": round(30 * sample_ns),
        "shop;main": round(15 * sample_ns),
        "shop;main;[jit]": round(4 * sample_ns),
        "demo;[unmapped]": round(1 * sample_ns),
    }
    assert kinds == {
        "all": "process",
        "shop": "process",
        "demo": "process",
        "main": "native",
        "app+0x1010": "unknown",
        "ksys_read": "kernel",
        "[jit]": "jit",
        "[unmapped]": "unknown",
    }
    coverage = answer["coverage"]
    # Frames by weight: main 99, work 80 (unnamed), ksys_read 30, jit 4 and unmapped 1 (unnamed).
    assert coverage["unsymbolized_share"] == pytest.approx(85 / 214, abs=1e-5)
    assert coverage["hosts"] == 1
    assert coverage["host_names"] == ["web-1"]
    assert coverage["host_seconds"] == 20
    assert coverage["samples"] == 100
    assert coverage["effective_rate_hz"] == pytest.approx(19, abs=0.01)
    assert coverage["undefined_stacks"] == 0


async def test_hosts_with_different_rates_weigh_right_and_losses_lower_the_rate(ask, send_at):
    for name, rate, count, lost in (("slow", 19_000, 190, 0), ("fast", 100_000, 1000, 1190)):
        await send_at(
            name,
            minutes_ago(2),
            {(MAIN,): count},
            rate_millihertz=rate,
            lost={"ring_full": lost},
        )
    answer = await ask()
    assert answer["total_ns"] == 20 * 10**9
    coverage = answer["coverage"]
    assert (coverage["samples"], coverage["lost_samples"]) == (1190, 1190)
    assert coverage["effective_rate_hz"] == pytest.approx(1190 / 20 / 2, abs=0.001)


async def test_functions_of_two_builds_merge_but_unresolved_offsets_do_not(ask, send_at, rows):
    rebuilt = (REBUILT, 0x2000)
    await send_at("web-1", minutes_ago(2), {(MAIN, WORK): 19, (rebuilt, (REBUILT, 0x1010)): 19})
    rows("UPDATE frames SET function = 'main', resolved = true WHERE \"offset\" IN (4096, 8192)")
    answer = await ask()
    names = [answer["strings"][i] for i in answer["functions"]["name"]]
    assert [names[i] for i in answer["nodes"]["function"]] == [
        *("all", "demo", "main", "app+0x1010", "app+0x1010"),
    ]
    assert answer["nodes"]["total"] == [2 * 10**9, 2 * 10**9, 2 * 10**9, 10**9, 10**9]


async def test_late_definitions_and_late_symbols_repair_what_was_asked_before(
    ask, new_node, rows, monkeypatch
):
    monkeypatch.setattr("aggregator.profiles.dictionary.RETRY_S", 0.0)
    monkeypatch.setattr("aggregator.profiles.frame_table.UNRESOLVED_FRESH_S", 0.0)
    node = new_node("web-1")
    await node.send(node.batch({(MAIN, WORK): 19}))
    answer = await ask()
    assert paths(answer)[0] == {"demo;[undefined]": 10**9}
    assert answer["coverage"]["undefined_stacks"] == 1
    assert answer["coverage"]["unsymbolized_share"] == 1

    await node.define([(MAIN, WORK)])
    assert paths(await ask())[0] == {"demo;app+0x1000;app+0x1010": 10**9}

    rows("UPDATE frames SET function = 'main', resolved = true WHERE \"offset\" = 4096")
    answer = await ask()
    assert paths(answer)[0] == {"demo;main;app+0x1010": 10**9}
    assert answer["coverage"]["undefined_stacks"] == 0
    assert answer["coverage"]["unsymbolized_share"] == 0.5


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {"nginx": 2, "cron": 4, "demo": 8}),
        ('{host="web-1"}', {"nginx": 2, "cron": 4}),
        ('{host=~"web-.*|db-.*", service!="cron"}', {"nginx": 2, "demo": 8}),
        ('{service="nginx"}', {"nginx": 2}),
        ('{region=~"fra|ams"}', {"nginx": 2}),
        ('{region=""}', {"cron": 4, "demo": 8}),
        ('{host="web-1", service="demo"}', {}),
        ('{nosuchlabel="x"}', {}),
        ('{host="nosuchhost"}', {}),
    ],
)
async def test_selectors(ask, send_at, query, expected):
    start_s = minutes_ago(2)
    await send_at("web-1", start_s, {(MAIN,): 38}, {"service": "nginx", "region": "fra"})
    await send_at("web-1", start_s + 10, {(MAIN,): 76}, {"service": "cron"})
    await send_at("db-1", start_s, {(MAIN,): 152}, {"service": "demo"})
    answer = await ask(query=query)
    names = [answer["strings"][i] for i in answer["functions"]["name"]]
    services = {
        names[function]: total // 10**9
        for function, total, level in zip(
            answer["nodes"]["function"],
            answer["nodes"]["total"],
            answer["nodes"]["level"],
            strict=True,
        )
        if level == 1
    }
    assert services == expected
    assert answer["coverage"]["samples"] == 19 * sum(expected.values())


async def test_one_batch_with_several_series(ask, node):
    series = [Series({"service": "b"}), Series({"service": "a"})]
    batch = node.batch(
        {(MAIN,): 19, (MAIN, WORK): 38},
        series=series,
        series_index=b"\1\0\0\0\0\0\0\0",
    )
    await node.send(batch)
    await node.define([(MAIN,), (MAIN, WORK)])
    assert paths(await ask())[0] == {
        "a;app+0x1000": 10**9,
        "b;app+0x1000;app+0x1010": 2 * 10**9,
    }


async def test_times_choose_rows_and_ends_snap_outwards(ask, send_at):
    start_s = minutes_ago(3)
    for step in range(12):
        await send_at("web-1", start_s + 10 * step, {(MAIN,): 19 << step})

    def seconds(*steps):
        return sum(1 << step for step in steps) * 10**9

    for from_s, until_s, steps, effective in (
        (0, 120, range(12), (0, 120)),
        (10, 20, [1], (10, 20)),
        (11, 12, [1], (10, 20)),
        (55, 61, [5, 6], (50, 70)),
        (19, 101, range(1, 11), (10, 110)),
        (60, 120, range(6, 12), (60, 120)),
    ):
        answer = await ask(**{"from": str(start_s + from_s), "until": str(start_s + until_s)})
        assert answer["total_ns"] == seconds(*steps), (from_s, until_s)
        assert answer["coverage"]["host_seconds"] == 10 * len(list(steps))
        for field, offset in zip(("from", "until"), effective, strict=True):
            expected = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start_s + offset))
            assert answer[f"effective_{field}"] == expected


async def test_batches_that_came_too_late_for_10_seconds_are_in_their_minute(ask, send_at, rows):
    start_s = minutes_ago(60 * 5)
    await send_at("web-1", start_s + 10, {(MAIN,): 19})
    await send_at("web-1", start_s + 30, {(MAIN,): 38})
    assert {tier for (tier,) in rows("SELECT tier_s FROM node_prof")} == {60}
    answer = await ask(**{"from": str(start_s + 35), "until": str(start_s + 40)})
    assert answer["total_ns"] == 3 * 10**9
    assert answer["effective_from"] == time.strftime("%Y-%m-%dT%H:%M:00Z", time.gmtime(start_s))
    elsewhere = await ask(**{"from": str(start_s + 60), "until": str(start_s + 120)})
    assert elsewhere["total_ns"] == 0


async def test_max_nodes_keeps_the_heaviest(ask, send_at, stack_of):
    stacks = [stack_of(number) for number in range(20)]
    await send_at("web-1", minutes_ago(2), {s: 19 * (n + 1) for n, s in enumerate(stacks)})
    whole, small = await ask(), await ask(max_nodes="12")
    assert len(whole["nodes"]["total"]) == 62
    assert len(small["nodes"]["total"]) <= 12
    assert small["total_ns"] == whole["total_ns"]
    kept = len(small["nodes"]["total"]) - 2  # chains of three: two "(other)" children
    assert small["other_nodes"] == 62 - kept or small["other_nodes"] == 62 - kept - 1
    assert "(other)" in small["strings"]


async def test_a_damaged_blob_is_counted_as_lost(ask, send_at, rows):
    await send_at("web-1", minutes_ago(2), {(MAIN,): 19})
    await send_at("web-2", minutes_ago(2), {(MAIN,): 38})
    rows("UPDATE node_prof SET data = substr(data, 1, 9) WHERE samples = 38")
    answer = await ask()
    assert answer["total_ns"] == 10**9
    assert answer["coverage"]["damaged_blobs"] == 1
    assert answer["coverage"]["lost_samples"] == 38


async def test_questions_at_once_get_the_same_answer(ask, client, send_at, stack_of):
    for number in range(12):
        name = f"web-{number % 3}"
        await send_at(name, minutes_ago(3) + 10 * number, {stack_of(number, 30): 19, (MAIN,): 5})
    queries = ({}, {"query": '{host="web-1"}'}, {"max_nodes": "40"}) * 4
    together = await asyncio.gather(*(ask(until=str(minutes_ago(0)), **q) for q in queries))
    alone = [await ask(until=str(minutes_ago(0)), **q) for q in queries[:3]]
    assert together == alone * 4


async def test_a_full_dictionary_starts_anew(ask, send_at, monkeypatch):
    await send_at("web-1", minutes_ago(2), {(MAIN, WORK): 38, (MAIN,): 19})
    first = await ask(until=str(minutes_ago(0)))
    monkeypatch.setattr("aggregator.profiles.dictionary.MAX_TREE_NODES", 1)
    assert await ask(until=str(minutes_ago(0))) == first


async def test_a_question_about_too_much_is_refused_in_words(
    ask, error_of, client, send_at, monkeypatch
):
    for step in range(3):
        await send_at("web-1", minutes_ago(3) + 10 * step, {(MAIN,): 19})
    monkeypatch.setattr("aggregator.profiles.reading.MAX_ROWS", 2)
    for path in ("flamegraph", "timeline"):
        parameters = {"query": '{service="demo"}'}
        request = client.get(f"/api/v1/{path}", params=parameters)
        assert await error_of(request) == (400, "bad_query")
    monkeypatch.undo()
    assert (await ask())["total_ns"] == 3 * 10**9


@pytest.mark.parametrize("path", ["flamegraph", "timeline", "nodes", "labels"])
async def test_a_database_that_is_gone_is_said_so(path, valkey_url, error_of):
    url = "postgresql+psycopg://nobody@127.0.0.1:1/nowhere"
    app = create_app(CentreConfig(database_url=url, broker_url=valkey_url))
    async with TestClient(TestServer(app)) as lonely:
        request = lonely.get(f"/api/v1/{path}")
        assert await error_of(request) == (503, "database_unavailable")


@pytest.mark.parametrize("path", ["flamegraph", "timeline"])
@pytest.mark.parametrize("until", ["now", "2199-12-31T23:59:59Z"])
async def test_all_times_may_be_asked_for(client, send_at, path, until):
    await send_at("web-1", minutes_ago(2), {(MAIN,): 19})
    parameters = {"from": "0", "until": until}
    async with client.get(f"/api/v1/{path}", params=parameters) as response:
        assert response.status == 200, await response.text()
        answer = await response.json()
    found = answer["total_ns"] if path == "flamegraph" else sum(answer["cpu_ns"])
    assert found == 10**9


async def test_folded(client, send_at):
    await send_at("web-1", minutes_ago(2), {(MAIN, WORK): 38, (MAIN,): 19})
    async with client.get("/api/v1/flamegraph", params={"format": "folded"}) as response:
        assert response.status == 200
        assert response.content_type == "text/plain"
        assert await response.text() == (
            "demo;app+0x1000 1000000000\ndemo;app+0x1000;app+0x1010 2000000000\n"
        )


async def test_pprof_is_opened_by_the_real_tool(client, send_at, rows, tmp_path):
    if shutil.which("go") is None:
        pytest.skip("the go tool is missing: install Go to read pprof files back")
    await send_at("web-1", minutes_ago(2), {(MAIN, WORK): 190, (MAIN,): 95})
    await send_at("web-1", minutes_ago(2) + 10, {(MAIN,): 100}, rate_millihertz=100_000)
    rows(
        "UPDATE frames SET function = 'main', file = 'app.c', line = 7, resolved = true "
        'WHERE "offset" = 4096'
    )
    path = tmp_path / "profile.pb.gz"
    async with client.get("/api/v1/flamegraph", params={"format": "pprof"}) as response:
        assert response.status == 200
        assert "Content-Encoding" not in response.headers
        path.write_bytes(await response.read())

    def pprof(*flags):
        command = ["go", "tool", "pprof", *flags, str(path)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    top = pprof("-top", "-unit=ms")
    assert "Type: cpu" in top
    assert "16000ms total" in top
    lines = {line.split()[-1]: line.split()[:5:3] for line in top.splitlines() if "%" in line}
    assert lines["main"] == ["6000ms", "16000ms"]
    assert lines["app+0x1010"] == ["10000ms", "10000ms"]
    assert "385" in pprof("-top", "-sample_index=samples")
    raw = pprof("-raw")
    assert "app.c:7" in raw
    assert "service:[demo]" in raw


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
        ({"query": "x" * 5000}, "at most 4096"),
    ],
)
async def test_bad_parameters_are_named(client, parameters, words):
    async with client.get("/api/v1/flamegraph", params=parameters) as response:
        assert response.status == 400
        error = (await response.json())["error"]
    assert error["code"] == "bad_query"
    assert words in error["message"]
    assert error["remedy"]
