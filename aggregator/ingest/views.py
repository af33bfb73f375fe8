"""POST /api/v1/batches and /api/v1/definitions."""

import asyncio
import time
from email.utils import parsedate_to_datetime

from aiohttp import web

from aggregator.access.requests import authenticate, check_node
from aggregator.access.service import NodeIdentity
from aggregator.app_keys import DATABASE, INGEST, METRICS
from aggregator.bodies import read_body
from aggregator.errors import AggregatorError
from aggregator.ingest.batches import PreparedBatch, prepare_batch
from aggregator.ingest.define import define_stacks
from aggregator.ingest.definitions import CheckedDefinitions, check_hashes
from aggregator.ingest.errors import OutOfTimeError
from aggregator.ingest.store import note_clock_offset
from aggregator.telemetry import TRACER
from wire import limits
from wire.codec import CONTENT_TYPE, decode, encode
from wire.errors import WireError
from wire.schema import Batch, Definitions

BYTES_OFF_LOOP = 32 << 10  # larger bodies are decoded in a thread: the loop serves others meanwhile

routes = web.RouteTableDef()


@routes.post("/api/v1/batches")
async def post_batch(request: web.Request) -> web.Response:
    """Store a batch exactly once; the answer (`wire.schema.Answer`) comes after the commit."""
    metrics = request.app[METRICS]
    arrived_ns = time.time_ns()  # of its head: a slow link is no wrong clock
    try:
        node = await authenticate(request)
        body = await read_body(request, limits.MAX_BATCH_BYTES)
        with TRACER.start_as_current_span("ingest.decode"), metrics.decode_seconds.time():
            arguments = body, node, arrived_ns, _sent_ns(request)
            if len(body) > BYTES_OFF_LOOP:
                batch = await asyncio.to_thread(_read_batch, *arguments)
            else:
                batch = _read_batch(*arguments)
    except (AggregatorError, WireError) as error:
        metrics.batches.labels("refused").inc()
        if isinstance(error, OutOfTimeError) and error.clock_offset_ms is not None:
            await note_clock_offset(request.app[DATABASE], node.id, error.clock_offset_ms)
        raise
    answer = await request.app[INGEST].submit(batch)
    return web.Response(body=encode(answer), content_type=CONTENT_TYPE)


@routes.post("/api/v1/definitions")
async def post_definitions(request: web.Request) -> web.Response:
    """Store the frames of stacks that the centre asked for. 204."""
    node = await authenticate(request)
    body = await read_body(request, limits.MAX_DEFINITIONS_BYTES)
    if len(body) > BYTES_OFF_LOOP:
        given = await asyncio.to_thread(_read_definitions, body, node)
    else:
        given = _read_definitions(body, node)
    with TRACER.start_as_current_span("ingest.define"):
        defined = await define_stacks(request.app[DATABASE], node.id, given)
    request.app[INGEST].directives.reported(node.id)
    metrics = request.app[METRICS]
    metrics.stacks_defined.inc(defined)
    metrics.dropped.labels("definition_not_wanted").inc(len(given.starts) - 1 - defined)
    return web.Response(status=204)


def _read_batch(
    body: bytes, node: NodeIdentity, received_ns: int, sent_ns: int | None
) -> PreparedBatch:
    batch = decode(body, Batch)
    check_node(node, batch.node)
    return prepare_batch(batch, node.id, received_ns, sent_ns)


def _read_definitions(body: bytes, node: NodeIdentity) -> CheckedDefinitions:
    definitions = decode(body, Definitions)
    check_node(node, definitions.node)
    return check_hashes(definitions)


def _sent_ns(request: web.Request) -> int | None:
    """When the node sent the request by its own clock: the Date header, if there is one.

    The header names a second; its middle is half a second off at most.
    """
    try:
        second = int(parsedate_to_datetime(request.headers["Date"]).timestamp())
        return second * 10**9 + 10**9 // 2
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
