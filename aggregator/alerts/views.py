"""GET /api/v1/alerts."""

from aiohttp import web

from aggregator.alerts.listing import list_alerts
from aggregator.app_keys import CONFIG, QUESTION_SESSIONS
from aggregator.broker_url import open_to_strangers
from aggregator.db import database_errors

routes = web.RouteTableDef()


@routes.get("/api/v1/alerts")
async def get_alerts(request: web.Request) -> web.Response:
    """The newest alerts with their deliveries, the number of webhooks that they go to, and whether
    strangers are kept from the broker: {"alerts": [...], "webhooks": n, "broker_is_closed": true}.
    """
    with database_errors():
        async with request.app[QUESTION_SESSIONS]() as session:
            alerts = await list_alerts(session)
    config = request.app[CONFIG]
    return web.json_response(
        {
            "alerts": alerts,
            "webhooks": len(config.webhooks),
            "broker_is_closed": not open_to_strangers(config.broker_url),
        }
    )
