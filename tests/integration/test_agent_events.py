"""What agents say that they did: stored once with their batch, read page by page, bounded."""

import time
from datetime import datetime, timezone

import pytest

from aggregator.access.errors import UnknownNodeError
from aggregator.config import CentreConfig, Retention
from aggregator.fleet.events import Place, drop_events, parse_place
from aggregator.fleet.tasks import drop_old_events
from aggregator.profiles.errors import QueryError
from wire.schema import Event

NOW_NS = time.time_ns()
SECOND_NS = 10**9
STEP = Event(
    NOW_NS - 60 * SECOND_NS,
    "governor",
    "cpu",
    "99 Hz -> 19 Hz: 1.52 % of the host, limit 1",
    1.52,
    1.0,
    "99 Hz",
    "19 Hz",
)
KILLED = Event(NOW_NS - 30 * SECOND_NS, "unit_limit", "oom", "the kernel ended the shipper")
UNKNOWN = Event(NOW_NS - 90 * SECOND_NS, "word_of_2030", "later on", "Größe", -1.5, 0.0, "", "x")


@pytest.fixture
def events_of(client):
    """events_of(node, ...): the answer of a node's events, which must be 200."""

    async def get(name, **parameters):
        path = f"/api/v1/nodes/{name}/events"
        async with client.get(path, params=parameters) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    return get


def rfc3339(at_ns):
    at = datetime.fromtimestamp(at_ns // 1000 / 1e6, timezone.utc)
    precision = "milliseconds" if at.microsecond else "seconds"
    return at.isoformat(timespec=precision).replace("+00:00", "Z")


async def test_events_are_stored_with_their_batch_and_only_once(
    node, new_node, stack_of, events_of, client
):
    assert await events_of("web-1") == {"events": [], "older": None}
    batch = node.batch({stack_of(1): 1}, events=[UNKNOWN, STEP, KILLED])
    assert (await node.send(batch)).status == "stored"
    assert (await node.send(batch)).status == "duplicate"
    other = new_node("db-1")
    await other.send(other.batch({stack_of(1): 1}, events=[STEP]))

    answer = await events_of("web-1")
    assert answer["older"] is None
    assert answer["events"] == [
        {
            "at": rfc3339(event.at_ns),
            "kind": event.kind,
            "reason": event.reason,
            "words": event.words,
            "value": event.value,
            "limit": event.limit,
            "before": event.before,
            "after": event.after,
        }
        for event in (KILLED, STEP, UNKNOWN)
    ]
    assert len((await events_of("db-1"))["events"]) == 1


async def test_an_event_from_another_time_is_dropped_and_counted(node, stack_of, events_of, client):
    times = (
        NOW_NS + 24 * 3_600 * SECOND_NS,
        NOW_NS - 49 * 3_600 * SECOND_NS,
        NOW_NS + 60 * SECOND_NS,
    )
    events = [Event(at_ns, "governor", "cpu", str(at_ns)) for at_ns in times]
    batch = node.batch({stack_of(1): 1}, events=events)
    assert (await node.send(batch)).status == "stored"

    # A minute ahead is a clock that is a little wrong: it is shown.
    assert [event["words"] for event in (await events_of("web-1"))["events"]] == [str(times[2])]
    metrics = await (await client.get("/metrics")).text()
    assert 'flamefleet_dropped_total{reason="event_out_of_time"} 2.0' in metrics


async def test_pages_and_choices(node, stack_of, events_of):
    # Three at one time: a page ends between them.
    seconds_ago = (50, 40, 30, 30, 30, 20, 10)
    events = [
        Event(NOW_NS - ago * SECOND_NS, "governor" if i % 2 else "profile", "", str(i))
        for i, ago in enumerate(seconds_ago)
    ]
    await node.send(node.batch({stack_of(1): 1}, events=events))

    seen, older = [], ""
    for _ in range(4):
        page = await events_of("web-1", limit=2, **({"older_than": older} if older else {}))
        seen += [event["words"] for event in page["events"]]
        older = page["older"]
        if older is None:
            break
    assert seen == ["6", "5", "4", "3", "2", "1", "0"]

    async def words(**parameters):
        return [event["words"] for event in (await events_of("web-1", **parameters))["events"]]

    assert await words(kind="governor") == ["5", "3", "1"]
    assert await words(kind="none") == []
    now_s = NOW_NS // SECOND_NS
    assert await words(until=str(now_s - 35)) == ["1", "0"]
    assert await words(**{"from": str(now_s - 35)}) == ["6", "5", "4", "3", "2"]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"from": "soon"}, "from='soon' is not a time"),
        ({"from": "now", "until": "now-1m"}, "not before until"),
        ({"limit": "0"}, "limit='0' must be a whole number, 1 to 1000"),
        ({"limit": "1001"}, "limit"),
        ({"kind": "k" * 65}, "is no kind of event"),
        ({"kind": "a\0b"}, "is no kind of event"),
        ({"older_than": "yesterday"}, "older_than='yesterday' is no place between events"),
        ({"older_than": "1-99999999999999999999"}, "older_than"),
        ({"older_than": "9999999999999999999-1"}, "older_than"),
    ],
)
async def test_bad_parameters_are_named(client, enrol, parameters, words):
    enrol("web-1")
    async with client.get("/api/v1/nodes/web-1/events", params=parameters) as response:
        assert response.status == 400
        error = (await response.json())["error"]
    assert error["code"] == "bad_query"
    assert words in error["message"]


async def test_a_node_that_is_not_there(client):
    for name in ("nobody", "a%00b", "%F0%9F%94%A5"):
        async with client.get(f"/api/v1/nodes/{name}/events") as response:
            assert response.status == 404
            error = (await response.json())["error"]
        assert (error["code"], error["remedy"]) == ("unknown_node", UnknownNodeError.remedy)


def test_places_are_read_as_written():
    place = Place(datetime(2026, 1, 2, 3, 4, 5, 678_901, timezone.utc), 2**62)
    assert parse_place(str(place)) == place
    for text in ("", "-", "1-", "-1", "1-2-3", "1.5-2", "\u0661-1"):
        with pytest.raises(QueryError):
            parse_place(text)


def test_old_and_surplus_events_are_dropped(enrol, rows, database, centre_config: CentreConfig):
    enrol("web-1")
    enrol("db-1")
    rows(
        'INSERT INTO agent_events (node_id, at, kind, reason, words, value, "limit", "before", '
        "\"after\") SELECT n.id, now() - i * interval '1 hour', 'governor', 'cpu', i::text, 1, 1, "
        "'', '' FROM nodes n, generate_series(1, CASE name WHEN 'web-1' THEN 200 ELSE 2 END) i"
    )
    count = (
        "SELECT n.name, count(*)::int FROM agent_events JOIN nodes n ON n.id = node_id GROUP BY 1"
    )

    # A week, as the overhead: 168 hours, of which the last is just over.
    assert Retention().overhead_s == 7 * 86_400
    assert drop_old_events(database, centre_config) == 33
    assert dict(rows(count)) == {"web-1": 167, "db-1": 2}
    assert drop_old_events(database, centre_config) == 0

    with database.begin() as connection:
        long_ago = datetime(2020, 1, 1, tzinfo=timezone.utc)
        assert drop_events(connection, long_ago, most=5) == 162
    assert dict(rows(count)) == {"web-1": 5, "db-1": 2}
    newest = "SELECT words FROM agent_events WHERE words <> '0' ORDER BY at DESC LIMIT 1"
    assert rows(newest) == [("1",)]
