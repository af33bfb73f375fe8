"""The server: its sockets, descriptors and signals."""

import asyncio
import logging
import resource
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from socket import socket

from aiohttp import web

from aggregator.app_keys import METRICS
from aggregator.connections import ConnectionLimits, Connections
from aggregator.loop_delay import watch_loop
from aggregator.protocol_errors import PlainWords

SHUTDOWN_TIMEOUT_S = 10.0
BACKLOG = 1024
MOST_DESCRIPTORS = 65_536
OTHER_DESCRIPTORS = 256  # pools, broker, uploads, children, log
_LINGER_S = 2.0  # reading on what a refused request still sends

LOG = logging.getLogger(__name__)


def raise_descriptors(most: int = MOST_DESCRIPTORS) -> int:
    """Allow this process as many open files as it may have, up to `most`; how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return most if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def connection_limits(most: int, descriptors: int) -> ConnectionLimits:
    """At most `most` connections, and no more than there are descriptors for; half of them from one
    address, which may be a proxy's."""
    room = max(16, min(most, descriptors - OTHER_DESCRIPTORS))
    if room < most:
        LOG.warning(
            "only %d of %d connections are taken: this process may open %d files; raise its limit "
            "(LimitNOFILE= of the unit, or ulimit -n)",
            room,
            most,
            descriptors,
        )
    return ConnectionLimits(room, max(1, room // 2))


@asynccontextmanager
async def serving(
    app: web.Application, host: str, port: int, limits: ConnectionLimits
) -> AsyncIterator[Sequence[socket]]:
    """Serve `app` inside the block; gives the listening sockets. At its end requests under way are
    finished first, for SHUTDOWN_TIMEOUT_S at most."""
    loop = asyncio.get_running_loop()
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    await runner.setup()
    try:
        assert runner.server is not None  # it has been set up
        protocol = partial(
            PlainWords,
            runner.server,
            app[METRICS].refused,
            loop=loop,
            access_log=None,  # a line for each of thousands of batches helps nobody
            auto_decompress=False,  # no endpoint takes a Content-Encoding
            keepalive_timeout=limits.idle_s,
            lingering_time=_LINGER_S,
        )
        connections = Connections(limits, app[METRICS], protocol)
        server = await loop.create_server(connections, host, port, backlog=BACKLOG)
        watching = asyncio.create_task(watch_loop(app[METRICS].loop_delay))
        try:
            yield server.sockets
        finally:
            watching.cancel()
            server.close()
    finally:
        await runner.cleanup()


async def serve_until_signal(
    app: web.Application, host: str, port: int, limits: ConnectionLimits
) -> None:
    """Serve until SIGINT or SIGTERM."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with serving(app, host, port, limits):
        await stop.wait()
