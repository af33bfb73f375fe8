"""GET /api/v1/flamegraph."""

import re
import time
from collections.abc import AsyncIterator

from aiohttp import web

from aggregator.app_keys import CONFIG, INCARNATION, QUESTION_DATABASE, QUESTION_WORKERS
from aggregator.export.folded import encode_graph
from aggregator.export.pprof import encode_stacks
from aggregator.flamegraph.columnar import encode_columnar
from aggregator.flamegraph.service import FlamegraphService
from aggregator.profiles.errors import QueryError
from aggregator.profiles.questions import parse_number, parse_question

FORMATS = ("columnar", "folded", "pprof")
DEFAULT_NODES = 20_000
MAX_NODES = 200_000
_PATH = re.compile("[0-9a-fA-F]{1,13}")
FLAMEGRAPHS = web.AppKey("flamegraphs", FlamegraphService)

routes = web.RouteTableDef()


def setup(app: web.Application) -> None:
    """Add the route and the service behind it."""
    app[FLAMEGRAPHS] = FlamegraphService(
        app[QUESTION_DATABASE],
        app[INCARNATION],
        app[QUESTION_WORKERS],
        app[CONFIG].retention.profiles_10s_s,
    )
    app.add_routes(routes)
    app.cleanup_ctx.append(_close)


async def _close(app: web.Application) -> AsyncIterator[None]:
    yield
    await app[FLAMEGRAPHS].close()


def _parse_path(text: str) -> int | None:
    if not text:
        return None
    if not _PATH.fullmatch(text):
        raise QueryError(f"zoom={text[:40]!r} is no path: 1 to 13 hexadecimal digits")
    return int(text, 16)


@routes.get("/api/v1/flamegraph")
async def get_flamegraph(request: web.Request) -> web.Response:
    """The flamegraph of `from`, `until` and `query`, as `format` says.

    columnar: JSON for the page (default). folded: text, nanoseconds. pprof: the file, which is
    gzipped itself. `max_nodes` prunes columnar and folded, what is below the path `zoom` (hex, from
    the page's links) last; 400 names a bad parameter.
    """
    parameters = request.query
    form = parameters.get("format", "") or FORMATS[0]
    if form not in FORMATS:
        raise QueryError(f"format={form[:40]!r} is unknown; known are {', '.join(FORMATS)}")
    default = DEFAULT_NODES if form == "columnar" else MAX_NODES
    max_nodes = parse_number(parameters, "max_nodes", default, 1, MAX_NODES)
    zoom = _parse_path(parameters.get("zoom", ""))
    question = parse_question(parameters, time.time())
    service = request.app[FLAMEGRAPHS]
    if form == "pprof":
        stacks, dictionary = await service.stacks(question)
        body = await service.run(encode_stacks, stacks, dictionary)
        headers = {"Content-Disposition": 'attachment; filename="flamefleet.pb.gz"'}
        return web.Response(body=body, content_type="application/octet-stream", headers=headers)
    flamegraph = await service.flamegraph(question, max_nodes, zoom)
    if form == "folded":
        text = await service.run(encode_graph, flamegraph.graph)
        return web.Response(text=text, content_type="text/plain", charset="utf-8")
    body = await service.run(encode_columnar, flamegraph)
    return web.Response(body=body, content_type="application/json", charset="utf-8")
