"""GET /api/v1/alerts."""

from aiohttp import web

from aggregator.alerts.listing import list_alerts
from aggregator.app_keys import CONFIG, QUESTION_SESSIONS
from aggregator.db import database_errors

routes = web.RouteTableDef()


@routes.get("/api/v1/alerts")
async def get_alerts(request: web.Request) -> web.Response:
    """The newest alerts with their deliveries, and the number of webhooks that they go to:
    {"alerts": [...], "webhooks": n}."""
    with database_errors():
        async with request.app[QUESTION_SESSIONS]() as session:
            alerts = await list_alerts(session)
    return web.json_response({"alerts": alerts, "webhooks": len(request.app[CONFIG].webhooks)})
