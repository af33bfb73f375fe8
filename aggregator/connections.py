"""Connections within limits, between the socket and aiohttp: how many there may be, and how long
each may take to ask and to read its answer. aiohttp itself waits for a request's head, and for a
client that does not read, without end.

A connection costs aiohttp's buffers and task only once a byte has come. Deadlines are fixed when
they begin, so a byte at a time extends none.
"""

import asyncio
import ipaddress
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler

from aggregator.bodies import MIN_BYTES_PER_S
from aggregator.telemetry import Metrics

MAX_UNREAD_BYTES = 64 << 20  # of answers, over all clients
_V6_HOST_BITS = 64  # one customer has them all


@dataclass(frozen=True)
class ConnectionLimits:
    """`most` in all and `most_of_address` from one; seconds for the head of a request, between two
    requests, and for an answer to be read (more where it is large)."""

    most: int
    most_of_address: int
    head_s: float = 10.0
    idle_s: float = 75.0
    read_s: float = 30.0


class Connections:
    """All connections of the aggregator. Over a limit, the one that has waited longest without a
    request under way is closed; if there is none, the new one."""

    def __init__(
        self, limits: ConnectionLimits, metrics: Metrics, serve: Callable[[], asyncio.Protocol]
    ) -> None:
        self.limits = limits
        self.unread_bytes = 0
        self._metrics = metrics
        self._serve = serve
        self._open: dict[str, dict[Connection, None]] = {}
        self._count = 0
        self._waiting: dict[Connection, None] = {}  # the longest first
        self._waiting_of: dict[str, dict[Connection, None]] = {}

    def __len__(self) -> int:
        return self._count

    def __call__(self) -> asyncio.Protocol:
        """A protocol for `loop.create_server`."""
        return Connection(self, self._serve)

    def admit(self, connection: "Connection") -> bool:
        """Count a new connection; False when it has no room."""
        of_address = len(self._open.get(connection.address, ()))
        if of_address >= self.limits.most_of_address:
            self._evict(self._waiting_of.get(connection.address, {}), "address_limit")
        if self._count >= self.limits.most:
            self._evict(self._waiting, "limit")
        of_address = len(self._open.get(connection.address, ()))
        if of_address >= self.limits.most_of_address or self._count >= self.limits.most:
            self.closed("limit")
            return False
        self._open.setdefault(connection.address, {})[connection] = None
        self._count += 1
        self._metrics.connections.set(self._count)
        return True

    def forget(self, connection: "Connection") -> None:
        """The connection is over."""
        of_address = self._open.get(connection.address, {})
        if connection not in of_address:
            return
        del of_address[connection]
        if not of_address:
            del self._open[connection.address]
        self._count -= 1
        self._metrics.connections.set(self._count)
        self.work(connection)

    def wait(self, connection: "Connection") -> None:
        """No request is under way on the connection from now on."""
        self._waiting[connection] = None
        self._waiting_of.setdefault(connection.address, {})[connection] = None

    def work(self, connection: "Connection") -> None:
        """A request is under way on the connection."""
        self._waiting.pop(connection, None)
        of_address = self._waiting_of.get(connection.address)
        if of_address is not None:
            of_address.pop(connection, None)
            if not of_address:
                del self._waiting_of[connection.address]

    def closed(self, reason: str) -> None:
        """Count a connection that was closed from here."""
        self._metrics.connections_closed.labels(reason).inc()

    def _evict(self, waiting: "dict[Connection, None]", reason: str) -> None:
        longest = next(iter(waiting), None)
        if longest is not None:
            longest.end(reason)


class Connection(asyncio.Protocol):
    """One connection: hands everything on to aiohttp's protocol and watches the clock."""

    def __init__(self, connections: Connections, serve: Callable[[], asyncio.Protocol]) -> None:
        self.address = ""
        self._connections = connections
        self._serve = serve
        self._inner: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._is_head_due = False
        self._requests = 0
        self._unread_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.address = _address(transport.get_extra_info("peername"))
        if not self._connections.admit(self):
            transport.abort()
            return
        self._transport = transport
        self._connections.wait(self)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        if self._inner is None:
            self._inner = self._serve()
            self._inner.connection_made(self._transport)
        if not self._requests and not self._is_head_due and not self._unread_bytes:
            self._expect_head()
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._inner is None else self._inner.eof_received()

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        if self._inner is not None:
            self._inner.pause_writing()
        if self._transport is None:
            return
        self._unread_bytes = self._transport.get_write_buffer_size()
        self._connections.unread_bytes += self._unread_bytes
        if self._connections.unread_bytes > MAX_UNREAD_BYTES:
            self.end("unread_answers")
            return
        allowed_s = self._connections.limits.read_s + self._unread_bytes / MIN_BYTES_PER_S
        self._end_after(allowed_s, "answer_not_read")

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()
        self._has_read()
        if self._transport is None:
            return
        if self._requests:
            self._cancel()
        else:
            self._end_after(self._connections.limits.idle_s, "idle")

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._cancel()
        self._has_read()
        self._connections.forget(self)
        if self._inner is not None:
            self._inner.connection_lost(exc)
            self._inner = None

    def end(self, reason: str) -> None:
        """Close at once, without waiting until what was written is read."""
        if self._transport is not None:
            self._connections.closed(reason)
            self._connections.forget(self)
            self._transport.abort()
            self._transport = None

    @contextmanager
    def request(self) -> Iterator[None]:
        """A request whose head has come is under way."""
        self._requests += 1
        self._is_head_due = False
        self._connections.work(self)
        if not self._unread_bytes:
            self._cancel()
        try:
            yield
        finally:
            self._requests -= 1
            if self._transport is not None and not self._requests:
                self._connections.wait(self)
                if not self._unread_bytes:
                    self._end_after(self._connections.limits.idle_s, "idle")

    def _expect_head(self) -> None:
        self._is_head_due = True
        self._end_after(self._connections.limits.head_s, "head_too_slow")

    def _end_after(self, seconds: float, reason: str) -> None:
        self._cancel()
        self._deadline = asyncio.get_running_loop().call_later(seconds, self.end, reason)

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _has_read(self) -> None:
        self._connections.unread_bytes -= self._unread_bytes
        self._unread_bytes = 0


@web.middleware
async def watch_connection(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The outermost middleware: tells the request's connection that its head has come."""
    transport = request.transport
    connection = None if transport is None else transport.get_protocol()
    if not isinstance(connection, Connection):
        return await handler(request)  # served by another server, as in tests
    with connection.request():
        return await handler(request)


def _address(peer: object) -> str:
    """The client that a connection counts for: an IPv4 address, 64 bits of an IPv6 one, or all of a
    Unix socket."""
    if not isinstance(peer, tuple):
        return ""
    host = str(peer[0])
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host.partition("%")[0])
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, 128 - _V6_HOST_BITS), strict=False))
