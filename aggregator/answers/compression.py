"""Answers compressed as the client takes them: zstd, gzip or deflate (RFC 9110, RFC 8878).

In threads of their own: 900 KB of a flamegraph take zlib 20 ms, in which the event loop serves
others.
"""

import gzip
import zlib
from collections.abc import AsyncIterator, Callable

import zstandard
from aiohttp import web
from aiohttp.typedefs import Handler

from aggregator.workers import OverloadedError, Workers

LEAST_BYTES = 1_400  # what fits into one packet anyway gains nothing
THREADS = 2
_TYPES = ("application/json", "text/", "image/svg+xml")
_ZSTD_LEVEL, _ZLIB_LEVEL = 3, 6


def _zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(data)


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, _ZLIB_LEVEL, mtime=0)


def _deflate(data: bytes) -> bytes:
    return zlib.compress(data, _ZLIB_LEVEL)


_CODINGS: dict[str, Callable[[bytes], bytes]] = {"zstd": _zstd, "gzip": _gzip, "deflate": _deflate}
_WORKERS = web.AppKey("compression", Workers)


def choose_coding(accepted: str) -> str | None:
    """The coding to use for an Accept-Encoding header: the one with the largest weight, of equal
    ones the first of ours; None for none."""
    weights: dict[str, float] = {}
    for part in accepted.lower().split(","):
        name, _, parameters = part.strip().partition(";")
        weights[name.strip()] = _weight(parameters)
    others = weights.get("*", 0.0)
    best = max(_CODINGS, key=lambda name: weights.get(name, others))
    return best if weights.get(best, others) > 0 else None


def _weight(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0


def setup_compression(app: web.Application) -> None:
    """Add the threads that `compress` uses."""
    app[_WORKERS] = Workers("compression", THREADS)
    app.cleanup_ctx.append(_threads)


async def _threads(app: web.Application) -> AsyncIterator[None]:
    yield
    await app[_WORKERS].close()


@web.middleware
async def compress(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Compress large answers of text, where the client takes that."""
    response = await handler(request)
    if not isinstance(response, web.Response):
        return response
    body = response.body
    if not isinstance(body, bytes) or not _is_worth_it(response, len(body)):
        return response
    response.headers["Vary"] = "Accept-Encoding"
    coding = choose_coding(request.headers.get("Accept-Encoding", ""))
    if coding is None or request.method == "HEAD":
        return response
    try:
        response.body = await request.app[_WORKERS].run(_CODINGS[coding], body)
    except OverloadedError:
        return response  # as it is: more bytes, and sooner
    response.headers["Content-Encoding"] = coding
    etag = response.headers.get("ETag")
    if etag is not None and not etag.startswith("W/"):
        response.headers["ETag"] = f"W/{etag}"  # the same content in other bytes
    return response


def _is_worth_it(response: web.StreamResponse, size: int) -> bool:
    return (
        size >= LEAST_BYTES
        and response.content_type.startswith(_TYPES)
        and "Content-Encoding" not in response.headers
    )
