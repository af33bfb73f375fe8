"""Bounds of every request: how many questions are answered at once, how many wait, and how long
each kind of request may take. What is over a bound is refused in words.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

from aiohttp import web
from aiohttp.typedefs import Handler

from aggregator.app_keys import METRICS
from aggregator.bodies import BODY_TIMEOUT_S, MIN_BYTES_PER_S
from aggregator.errors import RETRY_AFTER_S, AggregatorError
from aggregator.workers import OverloadedError

QUESTIONS_AT_ONCE = 3  # of those that read profiles
LISTS_AT_ONCE = 8
MOST_WAITING = 64
WAIT_S = 10.0
QUESTION_S = 30.0
STORE_S = 60.0
UPLOAD_S = 900.0  # reading gigabytes of debug information
_API = "/api/"
_UPLOADS = "/api/v1/debug-files"
# These read profiles: seconds of work and many megabytes, where others take milliseconds.
_PROFILES = frozenset({"/api/v1/flamegraph", "/api/v1/timeline", "/api/v1/stack_ends"})


class TookTooLongError(AggregatorError):
    """The answer was not there in time; the work on it has ended."""

    status: ClassVar[int] = 504
    code = "took_too_long"
    remedy = 'ask for a shorter time or for fewer hosts ({host="..."}), or ask again later'


class StoreTooSlowError(AggregatorError):
    """A message could not be stored in time."""

    status: ClassVar[int] = 503
    code = "store_too_slow"
    retry_after_s = RETRY_AFTER_S
    remedy = "send it again later; check that Postgres answers"


class Gate:
    """Lets `at_once` through; `most_waiting` may wait, WAIT_S each."""

    def __init__(self, at_once: int, most_waiting: int = MOST_WAITING) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._most_waiting = most_waiting
        self._waiting = 0

    @asynccontextmanager
    async def pass_through(self) -> AsyncIterator[None]:
        """Inside the block there is room. Raises OverloadedError."""
        if self._waiting >= self._most_waiting:
            raise OverloadedError(f"{self._waiting} questions wait already")
        self._waiting += 1
        try:
            await asyncio.wait_for(self._free.acquire(), WAIT_S)
        except asyncio.TimeoutError:
            raise OverloadedError(f"no room for this question within {WAIT_S:g} s") from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()


PROFILE_GATE = web.AppKey("profile_gate", Gate)
LIST_GATE = web.AppKey("list_gate", Gate)


def setup(app: web.Application) -> None:
    """Put the gates into the application."""
    app[PROFILE_GATE] = Gate(QUESTIONS_AT_ONCE)
    app[LIST_GATE] = Gate(LISTS_AT_ONCE)


@web.middleware
async def keep_bounds(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Questions pass a gate; every request ends in time."""
    if not request.path.startswith(_API):
        return await handler(request)  # from memory
    try:
        return await _in_time(request, handler)
    except asyncio.CancelledError:
        request.app[METRICS].given_up.inc()
        raise


async def _in_time(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.method not in ("GET", "HEAD"):
        allowed_s = store_time_s(request.path, request.content_length or 0)
        try:
            return await asyncio.wait_for(handler(request), allowed_s)
        except asyncio.TimeoutError:
            raise StoreTooSlowError(f"it was not stored within {allowed_s:.0f} s") from None
    gate = request.app[PROFILE_GATE if request.path in _PROFILES else LIST_GATE]
    async with gate.pass_through():
        try:
            return await asyncio.wait_for(handler(request), QUESTION_S)
        except asyncio.TimeoutError:
            raise TookTooLongError(f"there was no answer within {QUESTION_S:g} s") from None


def store_time_s(path: str, body_bytes: int) -> float:
    """How long a request may take that brings a body: the time for that, and for storing it."""
    return (
        BODY_TIMEOUT_S + body_bytes / MIN_BYTES_PER_S + (UPLOAD_S if path == _UPLOADS else STORE_S)
    )
