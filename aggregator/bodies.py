"""Reading request bodies with a limit on their size and on their time, while they arrive."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import Gauge

from aggregator.errors import RETRY_AFTER_S, AggregatorError
from wire import limits

CHUNK_BYTES = 1 << 16
MESSAGE_ROOM_BYTES = 64 << 20  # of all bodies together
MESSAGES_OF_OWNER_BYTES = limits.MAX_DEFINITIONS_BYTES + limits.MAX_BATCH_BYTES
NOBODY = 0  # the owner of what operators send
PACE_S = 10.0
LEAST_BYTES = 64 << 10  # in PACE_S, of a body that takes longer than that
BODY_TIMEOUT_S = 30.0
MIN_BYTES_PER_S = 64 << 10  # a large body may take longer, at this pace


class BodyError(AggregatorError):
    """A body that is not taken."""

    status: ClassVar[int] = 400
    code = "body"
    remedy = "send it again as it was meant"


class BodyTooLargeError(BodyError):
    """A body beyond the endpoint's limit."""

    status = 413
    code = "too_large"
    remedy = "send less at once"


class BodyTooSlowError(BodyError):
    """A body that did not arrive in time."""

    status = 408
    code = "too_slow"
    remedy = "check the network between node and centre, and send it again"


class BodyRoomError(BodyError):
    """The bodies that are being taken in fill the memory that there is for them."""

    status = 503
    code = "no_room_for_body"
    retry_after_s = RETRY_AFTER_S
    remedy = "send it again later"


class BodyEncodingError(BodyError):
    """A body with a Content-Encoding; messages are compressed inside."""

    status = 415
    code = "content_encoding"
    remedy = "send the message without Content-Encoding: it is compressed already"


class BodyRoom:
    """How much memory the bodies of all requests take that have not been answered, and those of one
    owner (a node)."""

    def __init__(self, gauge: Gauge, most: int, most_of_owner: int) -> None:
        self._gauge = gauge
        self._most = most
        self._most_of_owner = most_of_owner
        self._held: Counter[int] = Counter()
        self._sum = 0

    def take(self, owner: int, size: int) -> None:
        """Raises BodyRoomError when there is not as much left."""
        held = self._held[owner]
        if self._sum + size > self._most or held + size > self._most_of_owner:
            raise BodyRoomError(
                f"bodies of {self._sum} bytes are being taken in already, {held} of them from here"
            )
        self._held[owner] += size
        self._sum += size
        self._gauge.inc(size)

    def release(self, owner: int, size: int) -> None:
        """Give back what was taken."""
        self._held[owner] -= size
        if not self._held[owner]:
            del self._held[owner]
        self._sum -= size
        self._gauge.dec(size)


@dataclass
class _Held:
    """The memory that the body of a request takes."""

    room: BodyRoom
    owner: int
    size: int = 0


MESSAGE_ROOM = web.AppKey("message_room", BodyRoom)  # batches, definitions, questions
EXTRACT_ROOM = web.AppKey("extract_room", BodyRoom)
_HELD = web.RequestKey("held", _Held)


def setup(app: web.Application, gauge: Gauge) -> None:
    """Put the rooms into the application."""
    app[MESSAGE_ROOM] = BodyRoom(gauge, MESSAGE_ROOM_BYTES, MESSAGES_OF_OWNER_BYTES)
    app[EXTRACT_ROOM] = BodyRoom(gauge, limits.MAX_EXTRACT_BYTES, limits.MAX_EXTRACT_BYTES)


async def read_body(
    request: web.Request,
    limit_bytes: int,
    owner: int = NOBODY,
    room: web.AppKey[BodyRoom] = MESSAGE_ROOM,
) -> bytes:
    """The body of `request`, at most `limit_bytes` long.

    Never holds more than the limit and one chunk; that counts in `room`, for its `owner` (a node's
    id), until the request is answered. Raises BodyTooLargeError (413); BodyTooSlowError (408) after
    BODY_TIMEOUT_S plus the time that MIN_BYTES_PER_S gives the declared length, or when less than
    LEAST_BYTES come in PACE_S; BodyRoomError (503); BodyEncodingError (415); or BodyError when the
    connection breaks.
    """
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise BodyEncodingError("the body has a Content-Encoding")
    declared = request.content_length or 0
    if declared > limit_bytes:
        raise BodyTooLargeError(f"a body of {declared} bytes; at most {limit_bytes} are allowed")
    allowed_s = BODY_TIMEOUT_S + declared / MIN_BYTES_PER_S
    try:
        held = request[_HELD] = _Held(request.app[room], owner)
        return await asyncio.wait_for(_read(request, limit_bytes, held), allowed_s)
    except asyncio.TimeoutError:
        raise BodyTooSlowError(f"the body did not arrive within {allowed_s:.0f} s") from None
    except (ConnectionError, web.RequestPayloadError) as error:
        raise BodyError(f"the body broke off: {error}") from error


async def _read(request: web.Request, limit_bytes: int, held: _Held) -> bytes:
    body = bytearray()
    loop = asyncio.get_running_loop()
    judged_at, judged = loop.time(), 0
    try:
        async for chunk in request.content.iter_chunked(CHUNK_BYTES):
            if len(body) + len(chunk) > limit_bytes:
                raise BodyTooLargeError(f"more than {limit_bytes} bytes; that is the limit here")
            held.room.take(held.owner, len(chunk))
            held.size += len(chunk)
            body += chunk
            if loop.time() - judged_at > PACE_S:
                if len(body) - judged < LEAST_BYTES:
                    raise BodyTooSlowError(f"less than {LEAST_BYTES} bytes came in {PACE_S:g} s")
                judged_at, judged = loop.time(), len(body)
        return bytes(body)
    finally:
        del body  # an error knows this frame


@web.middleware
async def release_body(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Gives back the room of the request's body once it is answered."""
    try:
        return await handler(request)
    finally:
        held = request.get(_HELD)
        if held is not None:
            held.room.release(held.owner, held.size)
