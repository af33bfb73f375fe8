"""Which samples an answer is about: labels, hosts, times."""

import time

import pytest

from wire.schema import Module, ModuleKind, Series

APP = Module(ModuleKind.NATIVE, b"\x01" * 20, "app")
MAIN, WORK = (APP, 0x1000), (APP, 0x1010)


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
async def test_selectors(ask, send_at, query, expected, minutes_ago):
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


async def test_one_batch_with_several_series(ask, node, paths):
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


async def test_times_choose_rows_and_ends_snap_outwards(ask, send_at, minutes_ago):
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


async def test_batches_that_came_too_late_for_10_seconds_are_in_their_minute(
    ask, send_at, rows, minutes_ago
):
    start_s = minutes_ago(60 * 5)
    await send_at("web-1", start_s + 10, {(MAIN,): 19})
    await send_at("web-1", start_s + 30, {(MAIN,): 38})
    assert {tier for (tier,) in rows("SELECT tier_s FROM node_prof")} == {60}
    answer = await ask(**{"from": str(start_s + 35), "until": str(start_s + 40)})
    assert answer["total_ns"] == 3 * 10**9
    assert answer["effective_from"] == time.strftime("%Y-%m-%dT%H:%M:00Z", time.gmtime(start_s))
    elsewhere = await ask(**{"from": str(start_s + 60), "until": str(start_s + 120)})
    assert elsewhere["total_ns"] == 0


@pytest.mark.parametrize("path", ["flamegraph", "timeline"])
@pytest.mark.parametrize("until", ["now", "2199-12-31T23:59:59Z"])
async def test_all_times_may_be_asked_for(client, send_at, path, until, minutes_ago):
    await send_at("web-1", minutes_ago(2), {(MAIN,): 19})
    parameters = {"from": "0", "until": until}
    async with client.get(f"/api/v1/{path}", params=parameters) as response:
        assert response.status == 200, await response.text()
        answer = await response.json()
    found = answer["total_ns"] if path == "flamegraph" else sum(filter(None, answer["cpu_ns"]))
    assert found == 10**9
