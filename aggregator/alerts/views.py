"""GET /api/v1/alerts."""

from aiohttp import web

from aggregator.alerts.listing import list_alerts
from aggregator.app_keys import SESSIONS
from aggregator.db import database_errors

routes = web.RouteTableDef()


@routes.get("/api/v1/alerts")
async def get_alerts(request: web.Request) -> web.Response:
    """The newest alerts with their deliveries: {"alerts": [...]}."""
    with database_errors():
        async with request.app[SESSIONS]() as session:
            return web.json_response({"alerts": await list_alerts(session)})
