"""GET /api/v1/nodes, /api/v1/labels and /api/v1/timeline on what real nodes sent."""

import time
from datetime import datetime, timedelta, timezone

import pytest
from msgspec import structs

from aggregator.fleet.service import node_state, told_facts
from aggregator.profiles.compaction import compact
from wire.schema import Overhead

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def get(client):
    """The JSON answer of a path that must be 200."""

    async def get_json(path, **parameters):
        async with client.get(path, params=parameters) as response:
            assert response.status == 200, await response.text()
            assert response.content_type == "application/json"
            return await response.json()

    return get_json


def minute_start(minutes_ago=5):
    return int(time.time() // 60 * 60) - 60 * minutes_ago


@pytest.mark.parametrize(
    ("silent_s", "state"),
    [(None, "new"), (0, "reporting"), (60, "reporting"), (61, "late"), (601, "offline")],
)
def test_states(silent_s, state):
    seen = None if silent_s is None else NOW - timedelta(seconds=silent_s)
    assert node_state(seen, NOW) == state


async def test_nodes(get, new_node, stack_of, rows):
    web = new_node("web-1")
    new_node("quiet")
    start_s = minute_start(2)
    for step, percent in enumerate((90.0, 0.2, 0.2, 0.2, 0.2, 0.2, 0.8)):
        overhead = Overhead(10**8, 10**7, 2 * 10**8, 10**8, 30 << 20, 12 << 20, percent, 0.5)
        latest = {"event_latency_us": 17.25, "interrupt_ns": 12_000, "interrupt_spread_ns": 800}
        python = {"python_sampler_cpu_ns": 10**7, "python_kernel_cpu_ns": 3 * 10**7}
        overhead = structs.replace(overhead, **latest, **python, shipper_memory_bytes=9 << 20)
        start_ns = (start_s + 10 * step) * 10**9
        lost = {"ring_full": 3}
        await web.send(web.batch({stack_of(1): 1}, start_ns=start_ns, overhead=overhead, lost=lost))
    quiet, node = (await get("/api/v1/nodes"))["nodes"]

    assert (quiet["name"], quiet["state"], quiet["overhead"]) == ("quiet", "new", None)
    assert (quiet["asked_rate_hz"], quiet["shed"], quiet["lost"]) == (None, [], {})
    assert quiet["last_seen"] is None and quiet["rate_hz"] is None
    assert (node["name"], node["state"]) == ("web-1", "reporting")
    assert node["rate_hz"] == 19
    assert node["agent_version"] == "0.1.0"
    assert node["facts"] == {"kernel": "6.18.0"}
    assert node["online_cpus"] == 4
    assert node["lost_samples"] == 21
    assert node["lost"] == {"ring_full": 18}  # of the last six
    assert datetime.fromisoformat(node["last_seen"].replace("Z", "+00:00")) <= datetime.now(
        timezone.utc
    )
    # The mean of the last six reports: the first, expensive one is out of it.
    overhead = node["overhead"]
    assert overhead["cpu_percent"] == pytest.approx(0.3, abs=1e-4)
    # its parts, of the host: 4 CPUs
    assert overhead["user_percent"] == pytest.approx(0.275)
    assert overhead["kernel_percent"] == pytest.approx(0.5)
    assert overhead["interrupt_percent"] == pytest.approx(0.25)
    assert overhead["python_percent"] == pytest.approx(0.1)
    assert overhead["user_percent_of_core"] == 0.5
    assert (overhead["memory_bytes"], overhead["map_bytes"]) == (30 << 20, 12 << 20)
    parts = ("sampler_memory_bytes", "shipper_memory_bytes", "map_bytes")
    assert [overhead[part] >> 20 for part in parts] == [9, 9, 12]
    assert overhead["sampler_percent_of_core"] == pytest.approx(1)
    assert overhead["shipper_percent_of_core"] == pytest.approx(0.1)
    assert overhead["kernel_percent_of_core"] == pytest.approx(2)
    assert overhead["interrupt_percent_of_core"] == pytest.approx(1)
    newest = ("event_latency_us", "interrupt_ns", "interrupt_spread_ns")
    assert [overhead[name] for name in newest] == [17.25, 12_000, 800]

    rows("UPDATE nodes SET last_seen_at = now() - interval '11 minutes' WHERE name = 'web-1'")
    assert (await get("/api/v1/nodes"))["nodes"][1]["state"] == "offline"


async def test_memory_is_that_of_the_report_that_had_most(get, node, stack_of):
    start_s = minute_start(2)
    for step, (memory, maps, shipper) in enumerate(((40, 10, 12), (30, 12, 9))):
        cost = Overhead(0, 0, 0, 0, memory << 20, maps << 20, 0.1, 0.1)
        cost = structs.replace(cost, shipper_memory_bytes=shipper << 20)
        start_ns = (start_s + 10 * step) * 10**9
        await node.send(node.batch({stack_of(1): 1}, start_ns=start_ns, overhead=cost))
    overhead = (await get("/api/v1/nodes"))["nodes"][0]["overhead"]
    parts = ("memory_bytes", "map_bytes", "shipper_memory_bytes", "sampler_memory_bytes")
    assert [overhead[part] >> 20 for part in parts] == [40, 10, 12, 18]


async def test_what_a_node_gave_up_and_its_budget(get, node, stack_of):
    facts = {
        "asked_hz": "99",
        "effective_hz": "18.7",
        "budget_percent": "0.5",
        "budget_user_percent": "2",
        "shed": "rate (19 of 99 Hz), Python frames",
        "shed_since": "2026-01-02T03:04:05Z",
    }
    await node.send(node.batch({stack_of(1): 1}, facts=facts))
    [told] = (await get("/api/v1/nodes"))["nodes"]
    assert (told["asked_rate_hz"], told["rate_hz"], told["effective_rate_hz"]) == (99, 19, 18.7)
    assert told["budget"] == {"cpu_percent": 0.5, "user_percent_of_core": 2}
    assert told["shed"] == ["rate (19 of 99 Hz)", "Python frames"]
    assert told["shed_since"] == "2026-01-02T03:04:05Z"


@pytest.mark.parametrize("text", ["", "nan", "inf", "-1", "1e300", "many", "\u0660x"])
def test_facts_that_are_no_numbers_are_unknown(text):
    told = told_facts({"asked_hz": text, "shed": "rate", "shed_since": text}, 19)
    assert (told["asked_rate_hz"], told["shed"], told["shed_since"]) == (None, ["rate"], None)
    assert told["budget"] == {"cpu_percent": None, "user_percent_of_core": None}


@pytest.mark.parametrize(("rate_hz", "asked"), [(19, 99), (99, 99), (199, 199), (None, 99)])
def test_a_profile_on_demand_asked_for_the_rate_beyond_the_configured_one(rate_hz, asked):
    assert told_facts({"asked_hz": "99"}, rate_hz)["asked_rate_hz"] == asked


async def test_labels(get, new_node, stack_of):
    assert await get("/api/v1/labels") == {"labels": [{"name": "host", "values": []}]}
    web, db = new_node("web-1"), new_node("db-1")
    new_node("quiet")
    await web.send(web.batch({stack_of(1): 1}, {"service": "nginx", "region": "fra", "x": ""}))
    await web.send(web.batch({stack_of(1): 1}, {"service": "nginx", "version": "1.27"}))
    await db.send(db.batch({stack_of(1): 1}, {"service": "postgres", "region": "fra"}))

    assert await get("/api/v1/labels") == {
        "labels": [
            {"name": "host", "values": [{"value": "db-1"}, {"value": "web-1"}]},
            {"name": "region", "values": [{"value": "fra", "series": 2}]},
            {
                "name": "service",
                "values": [{"value": "nginx", "series": 2}, {"value": "postgres", "series": 1}],
            },
            {"name": "version", "values": [{"value": "1.27", "series": 1}]},
        ]
    }


async def test_timeline(get, new_node, stack_of, database):
    start_s = minute_start(10)
    web, db = new_node("web-1"), new_node("db-1")
    for step in range(12):
        start_ns = (start_s + 10 * step) * 10**9
        await web.send(web.batch({stack_of(1): 19}, {"service": "nginx"}, start_ns=start_ns))
        await db.send(db.batch({stack_of(1): 190}, {"service": "db"}, start_ns=start_ns))
    times = {"from": str(start_s - 60), "until": str(start_s + 180)}

    async def check(query, expected, **parameters):
        answer = await get("/api/v1/timeline", query=query, **times, **parameters)
        assert answer["cpu_ns"] == expected
        start = datetime.fromisoformat(answer["from"].replace("Z", "+00:00")).timestamp()
        end = datetime.fromisoformat(answer["until"].replace("Z", "+00:00")).timestamp()
        assert end - start == answer["step_s"] * len(expected)
        assert start <= start_s - 60 and start_s + 180 <= end
        return answer["step_s"]

    second = 10**9
    for _ in range(2):  # before and after the minutes are rolled up
        assert await check("", [None, 66 * second, 66 * second, None], points=4) == 60
        assert await check('{host="web-1"}', [None, 6 * second, 6 * second, None], points=4) == 60
        only_db = [None, 60 * second, 60 * second, None]
        assert await check('{service="db"}', only_db, points=4) == 60

        def fine(seconds):
            return [None] * 6 + [seconds * second] * 12 + [None] * 6

        assert await check("", fine(11), points=24) == 10
        assert await check('{service="nginx"}', fine(1), points=24) == 10
        assert await check('{service="none"}', [None, 0, 0, None], points=4) == 60
        compact(database)


async def test_a_gap_in_the_timeline_is_no_idle_time(get, new_node, stack_of):
    # web-1 is silent for 30 s of its second minute, db-1 is idle and then gone.
    start_s = minute_start(10)
    web, db = new_node("web-1"), new_node("db-1")
    for step in (0, 1, 2, 3, 4, 5, 6, 7, 8, 18):
        start_ns = (start_s + 10 * step) * 10**9
        await web.send(web.batch({stack_of(1): 190}, {"service": "nginx"}, start_ns=start_ns))
    for step in range(6):
        start_ns = (start_s + 10 * step) * 10**9
        await db.send(db.batch({}, {"service": "db"}, start_ns=start_ns))
    times = {"from": str(start_s), "until": str(start_s + 240), "points": 4}
    for query in ("", '{service="nginx"}'):
        answer = await get("/api/v1/timeline", query=query, **times)
        assert answer["cores"] == [pytest.approx(1), pytest.approx(1), None, pytest.approx(1)]
        assert answer["cpu_ns"] == [60 * 10**9, 30 * 10**9, None, 10 * 10**9]
    idle = await get("/api/v1/timeline", query='{host="db-1"}', **times)
    assert idle["cores"] == [0, None, None, None]


async def test_a_detached_agent_and_firing_alerts_are_told(get, new_node, stack_of, rows):
    web, db = new_node("web-1"), new_node("db-1")
    detached = {"breaker": "crashes: 3 crashes within 10 minutes"}
    nothing = Overhead(0, 0, 0, 0, 0, 0, 0.0, 0.0)
    await web.send(web.batch({}, facts=detached, overhead=nothing))
    await db.send(db.batch({stack_of(1): 1}))
    rows(
        "INSERT INTO alerts (rule, node_id, state, value, threshold) "
        "SELECT rule, id, state, 12, 10 FROM nodes, (VALUES ('clock_offset', 'firing'), "
        "('agent_overhead', 'resolved')) AS a (rule, state) WHERE name = 'db-1'"
    )
    db_node, web_node = (await get("/api/v1/nodes"))["nodes"]
    assert web_node["breaker"] == "crashes: 3 crashes within 10 minutes"
    assert web_node["overhead"] is None, "what is not measured is no 0.00 %"
    assert (db_node["breaker"], web_node["alerts"]) == (None, [])
    [alert] = db_node["alerts"]
    assert (alert["rule"], alert["value"], alert["threshold"]) == ("clock_offset", 12, 10)
    assert datetime.fromisoformat(alert["started_at"]) <= datetime.now(timezone.utc)


async def test_timeline_defaults(get):
    answer = await get("/api/v1/timeline")
    assert answer["step_s"] == 10
    assert set(answer["cpu_ns"]) == {None}
    assert len(answer["cpu_ns"]) in (90, 91)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"points": "0"}, "points='0' must be a whole number, 1 to 2000"),
        ({"points": "many"}, "points"),
        ({"from": "now", "until": "now-1m"}, "not before until"),
        ({"query": "{"}, "position 2"),
        ({"until": "soon"}, "until='soon'"),
    ],
)
async def test_bad_parameters_of_the_timeline_are_named(client, parameters, words):
    async with client.get("/api/v1/timeline", params=parameters) as response:
        assert response.status == 400
        assert words in (await response.json())["error"]["message"]
