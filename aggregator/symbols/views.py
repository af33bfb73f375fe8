"""POST /api/v1/symbols."""

import asyncio

from aiohttp import web

from aggregator.access.requests import authenticate, check_node
from aggregator.access.service import NodeIdentity
from aggregator.app_keys import METRICS, SESSIONS
from aggregator.bodies import read_body
from aggregator.db import database_errors
from aggregator.symbols.service import store_extract
from wire import limits
from wire.codec import decode
from wire.schema import SymbolExtract

routes = web.RouteTableDef()


@routes.post("/api/v1/symbols")
async def post_symbols(request: web.Request) -> web.Response:
    """Keep a symbol extract that this node was asked for. 204, also when others were faster.

    The worker reads it soon after; what is wrong inside it shows as the module's refused reason.
    """
    node = await authenticate(request)
    body = await read_body(request, limits.MAX_EXTRACT_BYTES)
    extract = await asyncio.to_thread(_read_extract, body, node)
    with database_errors():
        async with request.app[SESSIONS].begin() as session:
            kept = await store_extract(session, node.id, extract, body)
    if not kept:
        request.app[METRICS].dropped.labels("extract_not_needed").inc()
    return web.Response(status=204)


def _read_extract(body: bytes, node: NodeIdentity) -> SymbolExtract:
    extract = decode(body, SymbolExtract)
    check_node(node, extract.node)
    return extract
