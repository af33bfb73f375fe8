"""Names, kinds and shares of frames, and what of them is kept."""

import asyncio

import pytest

from wire.schema import Module, ModuleKind, Name

KERNEL = Module(ModuleKind.KERNEL, b"\x02" * 20, "vmlinux")
APP = Module(ModuleKind.NATIVE, b"\x01" * 20, "app")
REBUILT = Module(ModuleKind.NATIVE, b"\x03" * 20, "app")
JIT = Module(ModuleKind.NAMED, b"[jit]", "[jit]")
MARKERS = Module(ModuleKind.NAMED, b"[unknown]", "[unknown]")
MAIN, WORK, READ = (APP, 0x1000), (APP, 0x1010), (KERNEL, 0x500)


async def test_nothing_is_a_root_alone(ask):
    answer = await ask()
    assert answer["total_ns"] == 0
    assert answer["nodes"] == {
        "function": [0],
        "parent": [-1],
        "total": [0],
        "self": [0],
        "low": [0],
        "high": [1_000_000],
        "level": [0],
        "file": [-1],
        "line": [0],
    }
    assert answer["coverage"]["hosts"] == 0
    assert answer["coverage"]["samples"] == 0


async def test_shares_names_and_kinds(ask, send_at, rows, minutes_ago, paths):
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


async def test_hosts_with_different_rates_weigh_right_and_losses_lower_the_rate(
    ask, send_at, minutes_ago
):
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


async def test_functions_of_two_builds_merge_but_unresolved_offsets_do_not(
    ask, send_at, rows, minutes_ago
):
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
    ask, new_node, rows, monkeypatch, paths
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


async def test_max_nodes_keeps_the_heaviest(ask, send_at, stack_of, minutes_ago):
    stacks = [stack_of(number) for number in range(20)]
    await send_at("web-1", minutes_ago(2), {s: 19 * (n + 1) for n, s in enumerate(stacks)})
    whole, small = await ask(), await ask(max_nodes="12")
    assert len(whole["nodes"]["total"]) == 62
    assert len(small["nodes"]["total"]) <= 12
    assert small["total_ns"] == whole["total_ns"]
    kept = len(small["nodes"]["total"]) - 2  # chains of three: two "(other)" children
    assert small["other_nodes"] == 62 - kept or small["other_nodes"] == 62 - kept - 1
    assert "(other)" in small["strings"]


async def test_questions_at_once_get_the_same_answer(ask, client, send_at, stack_of, minutes_ago):
    for number in range(12):
        name = f"web-{number % 3}"
        await send_at(name, minutes_ago(3) + 10 * number, {stack_of(number, 30): 19, (MAIN,): 5})
    # A relative time would be another one ten seconds later.
    span = {"from": str(minutes_ago(10)), "until": str(minutes_ago(0))}
    queries = ({}, {"query": '{host="web-1"}'}, {"max_nodes": "40"}) * 4
    together = await asyncio.gather(*(ask(**span, **q) for q in queries))
    alone = [await ask(**span, **q) for q in queries[:3]]
    assert together == alone * 4


async def test_a_full_dictionary_starts_anew(ask, send_at, monkeypatch, minutes_ago):
    await send_at("web-1", minutes_ago(2), {(MAIN, WORK): 38, (MAIN,): 19})
    span = {"from": str(minutes_ago(10)), "until": str(minutes_ago(0))}
    first = await ask(**span)
    monkeypatch.setattr("aggregator.profiles.dictionary.MAX_TREE_NODES", 1)
    assert await ask(**span) == first
