"""/api/v1/nodes/{name}/profiles: ask a node for a profile, follow it, end it."""

from datetime import datetime, timezone
from typing import Any

import msgspec
from aiohttp import web

from aggregator.access.requests import authenticate_operator
from aggregator.app_keys import DATABASE, QUESTION_DATABASE
from aggregator.bodies import read_body
from aggregator.db import connection_scope
from aggregator.on_demand.asking import parse_asked
from aggregator.on_demand.description import describe
from aggregator.on_demand.errors import UnknownProfileError
from aggregator.on_demand.service import ask, cancel_profile, find_profile, list_profiles

MAX_BODY_BYTES = 4 << 10
_PROFILES = "/api/v1/nodes/{name}/profiles"

routes = web.RouteTableDef()


@routes.post(_PROFILES)
async def post_profile(request: web.Request) -> web.Response:
    """Ask a node for a profile, as an operator. 202 with what is known of it and its URL."""
    operator = await authenticate_operator(request)
    asked = parse_asked(await read_body(request, MAX_BODY_BYTES))
    now = datetime.now(timezone.utc)
    async with connection_scope(request.app[DATABASE]) as connection:
        node, known = await ask(connection, request.match_info["name"], operator, asked, now)
    answer = describe(node, known, now)
    return _json(answer, status=202, headers={"Location": answer["url"]})


@routes.get(_PROFILES)
async def get_profiles(request: web.Request) -> web.Response:
    """The profiles that the node was asked for, the newest first."""
    now = datetime.now(timezone.utc)
    async with connection_scope(request.app[QUESTION_DATABASE]) as connection:
        node, profiles = await list_profiles(connection, request.match_info["name"], now)
    return _json({"profiles": [describe(node, known, now) for known in profiles]})


@routes.get(_PROFILES + "/{id}")
async def get_profile(request: web.Request) -> web.Response:
    """How far a profile is (`aggregator.on_demand.description.describe`)."""
    now = datetime.now(timezone.utc)
    async with connection_scope(request.app[QUESTION_DATABASE]) as connection:
        node, known = await find_profile(connection, *_place(request), now)
    return _json(describe(node, known, now))


@routes.delete(_PROFILES + "/{id}")
async def delete_profile(request: web.Request) -> web.Response:
    """End a profile early, as an operator. 200 with what is known of it; it is over once its state
    says so."""
    operator = await authenticate_operator(request)
    now = datetime.now(timezone.utc)
    async with connection_scope(request.app[DATABASE]) as connection:
        node, known = await cancel_profile(connection, *_place(request), operator, now)
    return _json(describe(node, known, now))


def _place(request: web.Request) -> tuple[str, int]:
    name, number = request.match_info["name"], request.match_info["id"]
    if not (number.isascii() and number.isdigit() and len(number) < 19):
        raise UnknownProfileError(f"{name[:253]} has no profile {number[:40]!r}")
    return name, int(number)


def _json(
    value: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    body = msgspec.json.encode(value)
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")
