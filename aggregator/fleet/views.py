"""GET /api/v1/nodes, their events, /api/v1/labels, /api/v1/timeline and /api/v1/stack_ends."""

import time
from datetime import datetime, timezone
from typing import Any

import msgspec
from aiohttp import web

from aggregator.access.errors import UnknownNodeError
from aggregator.app_keys import CONFIG, QUESTION_DATABASE, QUESTION_WORKERS
from aggregator.db import connection_scope
from aggregator.fleet.events import list_events, parse_place
from aggregator.fleet.service import list_labels, list_nodes
from aggregator.fleet.stack_ends import read_service_ends
from aggregator.ingest.times import AHEAD_NS
from aggregator.profiles.errors import QueryError
from aggregator.profiles.questions import parse_number, parse_question, parse_times
from aggregator.profiles.stack_ends import StackEnds
from aggregator.profiles.timeline import read_timeline
from aggregator.profiles.times import format_time
from wire.limits import MAX_EVENT_WORD_BYTES

DEFAULT_POINTS = 120
MAX_POINTS = 2_000
EVENTS_FROM = "now-7d"
DEFAULT_EVENTS = 100
MAX_EVENTS = 1_000

routes = web.RouteTableDef()


@routes.get("/api/v1/nodes")
async def get_nodes(request: web.Request) -> web.Response:
    """Every node: state, agent, rate, overhead, losses (`aggregator.fleet.service.list_nodes`)."""
    async with connection_scope(request.app[QUESTION_DATABASE]) as connection:
        nodes = await list_nodes(connection, datetime.now(timezone.utc))
    return _json({"nodes": nodes})


@routes.get("/api/v1/nodes/{name}/events")
async def get_events(request: web.Request) -> web.Response:
    """What the agent of a node did and met between `from` and `until`, newest first: at most
    `limit`, of `kind` alone where it is given. `older` of an answer asks for the next page."""
    asked = request.query
    limit = parse_number(asked, "limit", DEFAULT_EVENTS, 1, MAX_EVENTS)
    from_s, until_s = parse_times(asked, time.time(), EVENTS_FROM)
    if not asked.get("until"):
        until_s += AHEAD_NS / 1e9  # a clock that is ahead must not hide what just happened
    kind = asked.get("kind") or None
    if kind is not None and (len(kind.encode()) > MAX_EVENT_WORD_BYTES or "\0" in kind):
        raise QueryError(f"kind={kind[:40]!r} is no kind of event")
    older_than = parse_place(asked["older_than"]) if asked.get("older_than") else None
    name = request.match_info["name"]
    if "\0" in name:
        raise UnknownNodeError("no node has NUL in its name")
    async with connection_scope(request.app[QUESTION_DATABASE]) as connection:
        events, older = await list_events(
            connection, name, from_s, until_s, kind, older_than, limit
        )
    return _json({"events": events, "older": None if older is None else str(older)})


@routes.get("/api/v1/labels")
async def get_labels(request: web.Request) -> web.Response:
    """Names and values of the labels that a query can select by."""
    async with connection_scope(request.app[QUESTION_DATABASE]) as connection:
        labels = await list_labels(connection)
    return _json({"labels": labels})


@routes.get("/api/v1/timeline")
async def get_timeline(request: web.Request) -> web.Response:
    """CPU time and cores of `query` between `from` and `until`, in about `points` steps; null where
    no host was observed."""
    points = parse_number(request.query, "points", DEFAULT_POINTS, 1, MAX_POINTS)
    question = parse_question(request.query, time.time())
    keep_fine_s = request.app[CONFIG].retention.profiles_10s_s
    async with connection_scope(request.app[QUESTION_DATABASE]) as connection:
        workers = request.app[QUESTION_WORKERS]
        timeline = await read_timeline(connection, workers, question, points, keep_fine_s)
    return _json(
        {
            "from": format_time(timeline.from_s),
            "until": format_time(timeline.until_s),
            "step_s": timeline.step_s,
            "cpu_ns": timeline.cpu_ns,
            "cores": timeline.cores,
        }
    )


@routes.get("/api/v1/stack_ends")
async def get_stack_ends(request: web.Request) -> web.Response:
    """How the stacks that `query` chooses between `from` and `until` ended, by service."""
    question = parse_question(request.query, time.time())
    keep_fine_s = request.app[CONFIG].retention.profiles_10s_s
    async with connection_scope(request.app[QUESTION_DATABASE]) as connection:
        workers = request.app[QUESTION_WORKERS]
        ends = await read_service_ends(connection, workers, question, keep_fine_s)
    return _json(
        {
            "effective_from": format_time(ends.span.from_s),
            "effective_until": format_time(ends.span.until_s),
            **_ends(ends.all),
            "services": [{"service": name, **_ends(one)} for name, one in ends.services],
            "damaged_blobs": ends.damaged_blobs,
        }
    )


def _ends(ends: StackEnds) -> dict[str, Any]:
    return {
        "samples": ends.total,
        "complete_share": ends.complete_share,
        "stack_ends": dict(ends.samples),
        "python_ends": dict(ends.python),
        "python_complete_share": ends.python_complete_share,
    }


def _json(value: dict[str, Any]) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
