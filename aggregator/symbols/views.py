"""POST /api/v1/symbols (from nodes) and /api/v1/debug-files (from operators)."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

from aiohttp import web

from aggregator.access.requests import authenticate, authenticate_operator, check_node
from aggregator.access.service import NodeIdentity
from aggregator.app_keys import CONFIG, DECODERS, INGEST, METRICS, SESSIONS
from aggregator.bodies import EXTRACT_ROOM, read_body
from aggregator.db import database_errors
from aggregator.symbols.service import store_extract
from aggregator.symbols.uploads import receive, store_upload
from aggregator.workers import Workers
from wire import limits
from wire.codec import decode
from wire.schema import ExtractView

UPLOADS_AT_ONCE = 2  # each may take gigabytes while it is read
_UPLOADS = web.AppKey("uploads", asyncio.Semaphore)
_READERS = web.AppKey("upload_readers", Workers)  # of files whose sender may have hung up

routes = web.RouteTableDef()


def setup(app: web.Application) -> None:
    """Add the routes."""
    app[_UPLOADS] = asyncio.Semaphore(UPLOADS_AT_ONCE)
    app[_READERS] = Workers("reading uploads", UPLOADS_AT_ONCE)
    app.add_routes(routes)
    app.cleanup_ctx.append(_close)


async def _close(app: web.Application) -> AsyncIterator[None]:
    yield
    await app[_READERS].close()


@routes.post("/api/v1/symbols")
async def post_symbols(request: web.Request) -> web.Response:
    """Keep a symbol extract that this node was asked for. 204, also when others were faster.

    The worker reads it soon after; what is wrong inside it shows as the module's refused reason.
    """
    node = await authenticate(request)
    with request.app[INGEST].refusals.noting(node.id):
        quotas = request.app[INGEST].quotas
        quotas.admit(node.id, "extract_megabytes")
        body = await read_body(request, limits.MAX_EXTRACT_BYTES, node.id, EXTRACT_ROOM)
        quotas.take(node.id, extract_megabytes=len(body) / (1 << 20))
        extract = await request.app[DECODERS].run(body, partial(_read_extract, body, node))
        with database_errors():
            async with request.app[SESSIONS].begin() as session:
                kept = await store_extract(session, node.id, extract, body)
    if not kept:
        request.app[METRICS].dropped.labels("extract_not_needed").inc()
    elif extract.refused:
        request.app[METRICS].dropped.labels("extract_refused_by_node").inc()
    return web.Response(status=204)


@routes.post("/api/v1/debug-files")
async def post_debug_file(request: web.Request) -> web.Response:
    """Take in an ELF file with debug information, named `name`, from an operator.

    The body is the file itself. Answers what it was found to be once its symbols are stored.
    """
    operator = await authenticate_operator(request)
    name = Path(request.query.get("name", "")).name or "[unnamed]"
    async with request.app[_UPLOADS]:
        most_bytes = request.app[CONFIG].symbols_upload_bytes
        upload = await receive(request, most_bytes, request.app[_READERS])
    with database_errors():
        async with request.app[SESSIONS].begin() as session:
            stored = await store_upload(session, upload, name, operator)
    answer = {**asdict(stored), "build_id": stored.build_id.hex()}
    return web.json_response(answer, status=201)


def _read_extract(body: bytes, node: NodeIdentity) -> ExtractView:
    extract = decode(body, ExtractView)
    check_node(node, extract.node)
    return extract
