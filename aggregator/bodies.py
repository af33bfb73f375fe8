"""Reading request bodies with a limit on their size and on their time, while they arrive."""

import asyncio
from typing import ClassVar

from aiohttp import web

from aggregator.errors import AggregatorError

CHUNK_BYTES = 1 << 16
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


class BodyEncodingError(BodyError):
    """A body with a Content-Encoding; messages are compressed inside."""

    status = 415
    code = "content_encoding"
    remedy = "send the message without Content-Encoding: it is compressed already"


async def read_body(
    request: web.Request, limit_bytes: int, timeout_s: float = BODY_TIMEOUT_S
) -> bytes:
    """The body of `request`, at most `limit_bytes` long.

    Never holds more than the limit and one chunk. Raises BodyTooLargeError (413), BodyTooSlowError
    (408) after `timeout_s` plus the time that MIN_BYTES_PER_S gives the declared length,
    BodyEncodingError (415), or BodyError when the connection breaks.
    """
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise BodyEncodingError("the body has a Content-Encoding")
    declared = request.content_length or 0
    if declared > limit_bytes:
        raise BodyTooLargeError(f"a body of {declared} bytes; at most {limit_bytes} are allowed")
    allowed_s = timeout_s + declared / MIN_BYTES_PER_S
    try:
        return await asyncio.wait_for(_read(request, limit_bytes), allowed_s)
    except asyncio.TimeoutError:
        raise BodyTooSlowError(f"the body did not arrive within {allowed_s:.0f} s") from None
    except (ConnectionError, web.RequestPayloadError) as error:
        raise BodyError(f"the body broke off: {error}") from error


async def _read(request: web.Request, limit_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in request.content.iter_chunked(CHUNK_BYTES):
        body += chunk
        if len(body) > limit_bytes:
            raise BodyTooLargeError(f"more than {limit_bytes} bytes; that is the limit here")
    return bytes(body)
