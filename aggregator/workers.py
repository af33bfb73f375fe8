"""Threads for what would hold up the event loop, one pool a purpose, each with a bounded queue.

Work whose caller goes away (a reader hangs up, a time limit passes) is dropped if it waits, and
ends at its next `checkpoint()` if it runs.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from functools import partial
from typing import ClassVar, TypeVar

from aggregator.errors import RETRY_AFTER_S, AggregatorError

Result = TypeVar("Result")
_given_up: ContextVar[threading.Event | None] = ContextVar("given_up", default=None)


class OverloadedError(AggregatorError):
    """More work waits than will be done in time."""

    status: ClassVar[int] = 503
    code = "overloaded"
    retry_after_s = RETRY_AFTER_S
    remedy = "try again in some seconds"


class GivenUpError(Exception):
    """Nobody waits for this work any more."""


def checkpoint() -> None:
    """Raise GivenUpError if nobody waits any more for the work that calls this."""
    given_up = _given_up.get()
    if given_up is not None and given_up.is_set():
        raise GivenUpError


class Workers:
    """`threads` threads, for which at most `most_waiting` pieces of work wait."""

    def __init__(self, name: str, threads: int, most_waiting: int = 256) -> None:
        self._name = name
        self._threads = threads
        self._most = threads + most_waiting
        self._executor = ThreadPoolExecutor(threads, name)
        self._unfinished = 0

    async def run(self, work: Callable[..., Result], *arguments: object) -> Result:
        """What `work` gives, from one of the threads. Raises OverloadedError."""
        if self._unfinished >= self._most:
            raise OverloadedError(f"{self._unfinished} pieces of work wait for {self._name}")
        loop = asyncio.get_running_loop()
        given_up = threading.Event()
        context = copy_context()
        context.run(_given_up.set, given_up)
        self._unfinished += 1
        future = self._executor.submit(context.run, partial(work, *arguments))
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._finish))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            given_up.set()
            raise
        finally:
            del future  # an error of the work, which it has, knows this frame

    async def close(self) -> None:
        """Drop what waits and stop; what runs is finished first."""
        await asyncio.to_thread(self._executor.shutdown, cancel_futures=True)

    def _finish(self) -> None:
        self._unfinished -= 1
