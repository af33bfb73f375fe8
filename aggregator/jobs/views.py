"""GET /api/v1/jobs."""

import msgspec
from aiohttp import web

from aggregator.app_keys import QUESTION_SESSIONS
from aggregator.db import database_errors
from aggregator.jobs.service import list_dropped

routes = web.RouteTableDef()


@routes.get("/api/v1/jobs")
async def get_jobs(request: web.Request) -> web.Response:
    """What the workers met: {"dropped_messages": [{"reason", "messages", "last_at"}]}."""
    with database_errors():
        async with request.app[QUESTION_SESSIONS]() as session:
            dropped = await list_dropped(session)
    body = msgspec.json.encode({"dropped_messages": dropped})
    return web.Response(body=body, content_type="application/json")
