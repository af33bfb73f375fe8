"""POST /api/v1/batches and /api/v1/definitions."""

import time
from dataclasses import replace
from email.utils import parsedate_to_datetime
from functools import partial
from typing import NamedTuple

from aiohttp import web

from aggregator.access.requests import authenticate, check_node
from aggregator.access.service import NodeIdentity
from aggregator.app_keys import CONFIG, DATABASE, DECODERS, INCARNATION, INGEST, METRICS
from aggregator.bodies import read_body
from aggregator.errors import AggregatorError
from aggregator.ingest.batches import PreparedBatch, prepare_batch
from aggregator.ingest.define import define_stacks
from aggregator.ingest.definitions import CheckedDefinitions, check_stacks
from aggregator.ingest.dictionary import KnownStack, ids_of, pack_numbers
from aggregator.ingest.errors import ClocksApartError, OutOfTimeError, UnknownNumberError
from aggregator.ingest.quotas import decoded_megabytes
from aggregator.ingest.series import Unnumbered
from aggregator.ingest.short import ShortRows, read_rows, unnumbered, widen
from aggregator.ingest.store import note_clock_offset
from aggregator.telemetry import TRACER
from wire import limits
from wire.codec import CONTENT_TYPE, SHORT_TYPE, decode, encode, is_short
from wire.errors import WireError
from wire.packed import PackedDefinitions
from wire.schema import Answer, Batch, Definitions
from wire.short import ShortBatch
from wire.unpack import unpack

routes = web.RouteTableDef()


class _Times(NamedTuple):
    """What a batch's time is judged by (`aggregator.ingest.times.check_time`)."""

    received_ns: int
    sent_ns: int | None
    kept_ns: int


@routes.post("/api/v1/batches")
async def post_batch(request: web.Request) -> web.Response:
    """Store a batch exactly once; the answer (`wire.schema.Answer`) comes after the commit."""
    metrics = request.app[METRICS]
    arrived_ns = time.time_ns()  # of its head: a slow link is no wrong clock
    epoch = request.app[INCARNATION].epoch
    try:
        node = await authenticate(request)
        with request.app[INGEST].refusals.noting(node.id):
            quotas = request.app[INGEST].quotas
            quotas.admit(node.id, "megabytes", "rows", "new_stacks", "new_series")
            body = await read_body(request, limits.MAX_BATCH_BYTES, node.id)
            quotas.take(node.id, megabytes=decoded_megabytes(body))
            with TRACER.start_as_current_span("ingest.decode"), metrics.decode_seconds.time():
                kept_ns = request.app[CONFIG].retention.profiles_60s_s * 10**9
                times = _Times(arrived_ns, _sent_ns(request), kept_ns)
                if is_short(body):
                    batch = await _read_short(request, body, node, times)
                else:
                    wants_numbers = SHORT_TYPE in request.headers.get("Accept", "")
                    read = partial(_read_batch, body, node, times, wants_numbers=wants_numbers)
                    batch = await request.app[DECODERS].run(body, read)
    except UnknownNumberError:  # it comes again at once, whole
        metrics.batches.labels("wanted_whole").inc()
        raise
    except OutOfTimeError as error:
        is_kept = isinstance(error, ClocksApartError)  # by its node, which sends it again
        metrics.batches.labels("postponed" if is_kept else "refused").inc()
        if error.clock_offset_ms is not None:
            await note_clock_offset(request.app[DATABASE], node.id, error.clock_offset_ms)
        raise
    except (AggregatorError, WireError):
        metrics.batches.labels("refused").inc()
        raise
    quotas.take(node.id, rows=len(batch.counts))
    answer = await request.app[INGEST].submit(batch, epoch)
    request.app[INGEST].ahead.batch_stored(node.id)
    return web.Response(body=encode(answer), content_type=CONTENT_TYPE)


@routes.post("/api/v1/definitions")
async def post_definitions(request: web.Request) -> web.Response:
    """Store the frames of stacks that the centre asked for. 204.

    Those that go ahead of their batch may be of stacks that none has brought yet: 200 with an
    `Answer`, which has their numbers. Also 200 where stacks are refused: it says how many, by
    reason.
    """
    epoch = request.app[INCARNATION].epoch
    node = await authenticate(request)
    with request.app[INGEST].refusals.noting(node.id):
        return await _define(request, node, epoch)


async def _define(request: web.Request, node: NodeIdentity, epoch: int) -> web.Response:
    ingest = request.app[INGEST]
    ingest.quotas.admit(node.id, "megabytes", "new_stacks", "new_frames")
    body = await read_body(request, limits.MAX_DEFINITIONS_BYTES, node.id)
    ingest.quotas.take(node.id, megabytes=decoded_megabytes(body))
    given, is_ahead = await request.app[DECODERS].run(body, partial(_read_definitions, body, node))
    hashes = given.all_hashes if is_ahead else []
    stacks: dict[bytes, KnownStack] = {}
    with TRACER.start_as_current_span("ingest.define"):
        if is_ahead:
            ingest.ahead.define(node.id, len(hashes))
            stacks = await ingest.dictionary.stack_ids(hashes)
            ingest.quotas.take(node.id, new_stacks=sum(one.is_new for one in stacks.values()))
        incarnation = request.app[INCARNATION]
        defined, new_frames = await define_stacks(
            request.app[DATABASE], incarnation, epoch, node.id, given
        )
        ingest.quotas.take(node.id, new_frames=new_frames)
    ingest.directives.reported(node.id)
    metrics = request.app[METRICS]
    metrics.stacks_defined.inc(defined)
    metrics.dropped.labels("definition_not_wanted").inc(len(given.starts) - 1 - defined)
    refused = {f"stack_{fault}": len(stacks) for fault, stacks in given.refused.items()}
    for reason, count in refused.items():
        ingest.refusals.note(node.id, reason, count)
    if not is_ahead and not refused:
        return web.Response(status=204)
    numbers = pack_numbers(ids_of(b"".join(hashes), stacks))
    answer = Answer("stored", stack_numbers=numbers, defined=defined, refused=refused)
    return web.Response(body=encode(answer), content_type=CONTENT_TYPE)


def _read_batch(
    body: bytes,
    node: NodeIdentity,
    times: _Times,
    *,
    wants_numbers: bool,
) -> PreparedBatch:
    batch = decode(body, Batch)
    check_node(node, batch.node)
    prepared = prepare_batch(
        batch, node.id, times.received_ns, times.sent_ns, kept_ns=times.kept_ns
    )
    if not wants_numbers:
        return prepared
    return replace(prepared, unnumbered=Unnumbered(prepared.hashes, prepared.told_series))


async def _read_short(
    request: web.Request, body: bytes, node: NodeIdentity, times: _Times
) -> PreparedBatch:
    def read() -> tuple[ShortBatch, ShortRows]:
        short = decode(body, ShortBatch)
        check_node(node, short.node)
        return short, read_rows(short)

    decoders = request.app[DECODERS]
    short, rows = await decoders.run(body, read)
    batch = await widen(short, rows, request.app[INGEST].dictionary, partial(decoders.run, body))

    def prepare() -> PreparedBatch:
        prepared = prepare_batch(
            batch, node.id, times.received_ns, times.sent_ns, short.digest, times.kept_ns
        )
        return replace(prepared, unnumbered=unnumbered(short, rows))

    return await decoders.run(body, prepare)


def _read_definitions(body: bytes, node: NodeIdentity) -> tuple[CheckedDefinitions, bool]:
    """The definitions, and whether they go ahead of their batch."""
    if not is_short(body):
        definitions = decode(body, Definitions)
        check_node(node, definitions.node)
        return check_stacks(definitions), False
    packed = decode(body, PackedDefinitions)
    check_node(node, packed.node)
    return check_stacks(unpack(packed)), packed.ahead


def _sent_ns(request: web.Request) -> int | None:
    """When the node sent the request by its own clock: the Date header, if there is one.

    The header names a second; its middle is half a second off at most.
    """
    try:
        second = int(parsedate_to_datetime(request.headers["Date"]).timestamp())
        return second * 10**9 + 10**9 // 2
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
