"""An aggregator behind its own server, as `flamefleet serve` runs it, and plain sockets to it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from aggregator.connections import ConnectionLimits
from aggregator.serving import serving

Serve = Callable[..., Awaitable[int]]
Connect = Callable[[int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@pytest.fixture
async def serve(app: web.Application) -> AsyncIterator[Serve]:
    """serve(most=…, …): serves the aggregator with these limits of connections; its port."""
    async with AsyncExitStack() as stack:

        async def start(most: int = 100, most_of_address: int = 100, **limits: float) -> int:
            limited = ConnectionLimits(most, most_of_address, **limits)
            sockets = await stack.enter_async_context(serving(app, "127.0.0.1", 0, limited))
            port: int = sockets[0].getsockname()[1]
            return port

        yield start


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """connect(port): a reader and a writer of a new connection, closed after the test."""
    writers = []

    async def open_one(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        return reader, writer

    yield open_one
    for writer in writers:
        writer.transport.abort()


@pytest.fixture
def wait_for() -> Callable[..., Awaitable[None]]:
    """wait_for(holds, what): until `holds()`, while the event loop goes on."""

    async def wait(holds: Callable[[], object], what: str, limit_s: float = 120.0) -> None:
        loop = asyncio.get_running_loop()
        limit = loop.time() + limit_s
        while not holds():
            assert loop.time() < limit, f"waited {limit_s:.0f} s in vain: {what}"
            await asyncio.sleep(0.02)

    return wait
