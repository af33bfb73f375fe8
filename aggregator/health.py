"""GET /healthz (alive), /readyz (can it work, and what is missing), /metrics."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import redis
import redis.exceptions
from aiohttp import web
from sqlalchemy import text

from aggregator.app_keys import CONFIG, HEALTH_DATABASE, METRICS
from aggregator.db import connection_scope, current_revision, head_revision
from aggregator.errors import AggregatorError, DatabaseError
from aggregator.telemetry import EXPOSITION_TYPE
from aggregator.workers import Workers

CHECK_TIMEOUT_S = 5.0

CHECKERS = 2  # threads; a broker that hangs holds one of them
_READINESS: "web.AppKey[Readiness]" = web.AppKey("readiness")

routes = web.RouteTableDef()


def setup(app: web.Application) -> None:
    """Add the routes and what checks for them."""
    app[_READINESS] = Readiness(app)
    app.add_routes(routes)
    app.cleanup_ctx.append(_close)


async def _close(app: web.Application) -> AsyncIterator[None]:
    yield
    await app[_READINESS].close()


class NotReadyError(AggregatorError):
    """Something that the aggregator needs is not there."""

    status = 503
    code = "not_ready"


@routes.get("/healthz")
async def get_health(request: web.Request) -> web.Response:
    """200 as long as the process serves requests; asks nobody else."""
    return web.json_response({"alive": True})


@routes.get("/readyz")
async def get_readiness(request: web.Request) -> web.Response:
    """200 if database, migrations and broker are as they must be, else 503; each is named."""
    results = await request.app[_READINESS].results()
    ready = all(result["ok"] for result in results.values())
    body = {"ready": ready, "checks": results}
    return web.json_response(body, status=200 if ready else NotReadyError.status)


@routes.get("/metrics")
async def get_metrics(request: web.Request) -> web.Response:
    """This process's counters for Prometheus."""
    body = request.app[METRICS].exposition()
    return web.Response(body=body, headers={"Content-Type": EXPOSITION_TYPE})


class Readiness:
    """The checks, in connections and threads of their own: what hangs there holds up nothing else.
    Who asks while they run gets what they find."""

    def __init__(self, app: web.Application) -> None:
        self._database = app[HEALTH_DATABASE]
        self._broker_url = redis_url(app[CONFIG].broker_url)
        self._workers = Workers("health", CHECKERS, most_waiting=CHECKERS)
        self._head = head_revision()
        self._running: asyncio.Task[dict[str, dict[str, Any]]] | None = None

    async def results(self) -> dict[str, dict[str, Any]]:
        """By check: whether it is `ok`, else the `problem` in words."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._check())
        return await asyncio.shield(self._running)

    async def close(self) -> None:
        """Stop the threads."""
        if self._running is not None:
            await self._running
        await self._workers.close()

    async def _check(self) -> dict[str, dict[str, Any]]:
        checks = {
            "database": self._check_database,
            "migrations": self._check_migrations,
            "broker": self._check_broker,
        }
        words = await asyncio.gather(*(_run(check) for check in checks.values()))
        return {
            name: {"ok": problem is None, **({} if problem is None else {"problem": problem})}
            for name, problem in zip(checks, words, strict=True)
        }

    async def _check_database(self) -> None:
        async with connection_scope(self._database) as connection:
            await connection.execute(text("SELECT 1"))

    async def _check_migrations(self) -> None:
        try:
            async with connection_scope(self._database) as connection:
                current = await connection.run_sync(current_revision)
        except DatabaseError as error:
            raise NotReadyError("unknown while the database cannot be asked") from error
        if current != self._head:
            raise NotReadyError(
                f"the database is at {current or 'no revision'}, this aggregator needs "
                f"{self._head}: run `flamefleet db upgrade`"
            )

    async def _check_broker(self) -> None:
        # In a thread: redis-py reads files whenever it makes a connection.
        await self._workers.run(_ping_broker, self._broker_url)


async def _run(check: Callable[[], Awaitable[None]]) -> str | None:
    """What is wrong, in words, or None."""
    try:
        await asyncio.wait_for(check(), CHECK_TIMEOUT_S)
    except asyncio.TimeoutError:
        return f"no answer within {CHECK_TIMEOUT_S:g} s"
    except AggregatorError as error:
        return error.message
    return None


def _ping_broker(url: str) -> None:
    timeouts = {"socket_timeout": CHECK_TIMEOUT_S, "socket_connect_timeout": CHECK_TIMEOUT_S}
    try:
        with redis.Redis.from_url(url, **timeouts) as client:
            client.ping()
    except (redis.exceptions.RedisError, OSError, ValueError) as error:
        raise NotReadyError(f"the broker cannot be reached: {error}") from error


def redis_url(broker_url: str) -> str:
    """Celery's broker URL as redis-py reads it: `redis+socket:///path?virtual_host=N` differs."""
    scheme, separator, rest = broker_url.partition("://")
    if scheme != "redis+socket":
        return broker_url
    return "unix" + separator + rest.replace("virtual_host=", "db=")
