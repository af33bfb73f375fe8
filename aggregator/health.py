"""GET /healthz (alive), /readyz (can it work, and what is missing), /metrics."""

import asyncio
from collections.abc import Awaitable, Callable

import redis
import redis.exceptions
from aiohttp import web
from sqlalchemy import text

from aggregator.app_keys import CONFIG, DATABASE, METRICS
from aggregator.db import connection_scope, current_revision, head_revision
from aggregator.errors import AggregatorError, DatabaseError
from aggregator.telemetry import EXPOSITION_TYPE

CHECK_TIMEOUT_S = 5.0

routes = web.RouteTableDef()


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
    app = request.app
    checks = {"database": _check_database, "migrations": _check_migrations, "broker": _check_broker}
    words = await asyncio.gather(*(_run(check, app) for check in checks.values()))
    results = {
        name: {"ok": problem is None, **({} if problem is None else {"problem": problem})}
        for name, problem in zip(checks, words, strict=True)
    }
    ready = all(problem is None for problem in words)
    body = {"ready": ready, "checks": results}
    return web.json_response(body, status=200 if ready else NotReadyError.status)


@routes.get("/metrics")
async def get_metrics(request: web.Request) -> web.Response:
    """This process's counters for Prometheus."""
    body = request.app[METRICS].exposition()
    return web.Response(body=body, headers={"Content-Type": EXPOSITION_TYPE})


async def _run(
    check: Callable[[web.Application], Awaitable[None]], app: web.Application
) -> str | None:
    """What is wrong, in words, or None."""
    try:
        await asyncio.wait_for(check(app), CHECK_TIMEOUT_S)
    except asyncio.TimeoutError:
        return f"no answer within {CHECK_TIMEOUT_S:g} s"
    except AggregatorError as error:
        return error.message
    return None


async def _check_database(app: web.Application) -> None:
    async with connection_scope(app[DATABASE]) as connection:
        await connection.execute(text("SELECT 1"))


async def _check_migrations(app: web.Application) -> None:
    head = await asyncio.to_thread(head_revision)
    try:
        async with connection_scope(app[DATABASE]) as connection:
            current = await connection.run_sync(current_revision)
    except DatabaseError as error:
        raise NotReadyError("unknown while the database cannot be asked") from error
    if current != head:
        raise NotReadyError(
            f"the database is at {current or 'no revision'}, this aggregator needs {head}: run "
            "`flamefleet db upgrade`"
        )


async def _check_broker(app: web.Application) -> None:
    # In a thread: redis-py reads files whenever it makes a connection.
    await asyncio.to_thread(_ping_broker, redis_url(app[CONFIG].broker_url))


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
