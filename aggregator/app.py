"""The aiohttp application: wires the parts together, and turns errors into answers."""

import asyncio
import importlib
import importlib.util
import ipaddress
import logging
import os
import sys
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from sqlalchemy.ext.asyncio import async_sessionmaker

from aggregator import bodies, bounds
from aggregator.access.errors import ReadTokenError
from aggregator.access.reading import CHALLENGE, load_read_token, require_read_token
from aggregator.access.service import TokenCache
from aggregator.answers.compression import compress, setup_compression
from aggregator.answers.headers import add_headers
from aggregator.answers.hosts import host_names, require_own_host
from aggregator.app_keys import (
    CONFIG,
    DATABASE,
    DECODERS,
    HEALTH_DATABASE,
    INCARNATION,
    INGEST,
    METRICS,
    QUESTION_DATABASE,
    QUESTION_SESSIONS,
    QUESTION_WORKERS,
    SESSIONS,
    TOKENS,
)
from aggregator.bodies import release_body
from aggregator.bounds import LISTS_AT_ONCE, QUESTION_S, QUESTIONS_AT_ONCE, keep_bounds
from aggregator.broker_url import REMEDY, open_to_strangers
from aggregator.config import CentreConfig
from aggregator.connections import watch_connection
from aggregator.db import create_database
from aggregator.errors import AggregatorError, wire_status
from aggregator.health import CHECK_TIMEOUT_S
from aggregator.incarnation import Incarnation
from aggregator.ingest.decoding import Decoders
from aggregator.ingest.group import GroupCommit
from aggregator.rare_log import keep_log_small
from aggregator.serving import connection_limits, raise_descriptors, serve_until_signal
from aggregator.telemetry import Metrics, setup_tracing
from aggregator.workers import Workers
from wire.errors import WireError

LOG = logging.getLogger(__name__)
QUESTION_POOL = QUESTIONS_AT_ONCE + LISTS_AT_ONCE
QUESTION_THREADS = 2
SWITCH_S = 0.001
VIEWS = (
    "aggregator.health",
    "aggregator.ingest.views",
    "aggregator.symbols.views",
    "aggregator.flamegraph.views",
    "aggregator.fleet.views",
    "aggregator.on_demand.views",
    "aggregator.alerts.views",
    "aggregator.jobs.views",
    "aggregator.dashboard.views",
)


def create_app(config: CentreConfig) -> web.Application:
    """The aggregator. It connects on first use, so it starts (and says why it is not ready)
    without a database too. Raises ConfigError for a read token that cannot be used."""
    middlewares: list[Middleware] = [watch_connection, compress, errors_as_json]
    if config.read_token_file:
        middlewares.append(require_read_token(load_read_token(config.read_token_file)))
    else:
        middlewares.append(require_own_host(host_names(config)))
    # Errors end inside of keep_bounds, whose wait would keep them, and all that their frames hold.
    middlewares += [keep_bounds, errors_as_json, release_body]
    app = web.Application(middlewares=middlewares)
    app.on_response_prepare.append(add_headers)
    setup_compression(app)
    app[CONFIG] = config
    app[METRICS] = Metrics()
    app[DATABASE] = create_database(config.database_url)
    app[QUESTION_DATABASE] = create_database(
        config.database_url, QUESTION_POOL, int(QUESTION_S * 1000)
    )
    app[HEALTH_DATABASE] = create_database(config.database_url, 1, int(CHECK_TIMEOUT_S * 1000))
    app[DECODERS] = Decoders()
    app[QUESTION_WORKERS] = Workers("questions", QUESTION_THREADS)
    bodies.setup(app, app[METRICS].body_bytes)
    app[SESSIONS] = async_sessionmaker(app[DATABASE], expire_on_commit=False)
    app[QUESTION_SESSIONS] = async_sessionmaker(app[QUESTION_DATABASE], expire_on_commit=False)
    app[TOKENS] = TokenCache(app[DATABASE])
    app[INCARNATION] = Incarnation()
    app[INCARNATION].on_end(app[TOKENS].clear)
    app[INGEST] = GroupCommit(
        app[DATABASE], app[METRICS], config.retention, config.quotas, app[INCARNATION]
    )
    bounds.setup(app)
    app.cleanup_ctx.append(_database)
    app.cleanup_ctx.append(_workers)
    app.cleanup_ctx.append(_group_commit)
    for name in VIEWS:
        _register(app, name)
    return app


def serve(config: CentreConfig) -> None:
    """Serve until SIGINT or SIGTERM; requests under way are finished first."""
    setup_tracing(os.environ)
    app = create_app(config)
    if not config.read_token_file and not _is_loopback(config.host):
        LOG.warning(
            "whoever reaches %s port %d may read every profile: set read_token_file",
            config.host,
            config.port,
        )
    why = open_to_strangers(config.broker_url)
    if why:
        LOG.warning("%s: %s", why, REMEDY)
    keep_log_small()
    # The loop gets its turn within this time while threads compute.
    sys.setswitchinterval(SWITCH_S)
    limits = connection_limits(config.max_connections, raise_descriptors())
    asyncio.run(serve_until_signal(app, config.host, config.port, limits))


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error as `{"error": {"code", "message", "remedy"}}`, counted by its code."""
    try:
        return await handler(request)
    except AggregatorError as error:
        answer = _answer(request, error.status, error.code, error.message, error.remedy)
        if error.retry_after_s is not None:
            answer.headers["Retry-After"] = str(error.retry_after_s)
        return answer
    except WireError as error:
        status, code = wire_status(error)
        remedy = "the message was not stored; do not send it again unchanged"
        return _answer(request, status, code, str(error), remedy)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        code = error.reason.lower().replace(" ", "_")
        answer = _answer(request, error.status, code, f"{request.path}: {error.reason}", "")
        if "Allow" in error.headers:
            answer.headers["Allow"] = error.headers["Allow"]
        return answer
    except Exception:  # whatever it is becomes a 500 in words, and is logged whole
        LOG.exception("%s %s failed", request.method, request.path)
        words = "the aggregator failed; its log says why"
        return _answer(request, 500, "internal", words, AggregatorError.remedy)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _answer(
    request: web.Request, status: int, code: str, message: str, remedy: str
) -> web.Response:
    request.app[METRICS].refused.labels(code).inc()
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = CHALLENGE if code == ReadTokenError.code else "Bearer"
    body = {"error": {"code": code, "message": message, "remedy": remedy}}
    return web.json_response(body, status=status, headers=headers)


def _register(app: web.Application, name: str) -> None:
    if importlib.util.find_spec(name) is None:
        return
    views = importlib.import_module(name)
    if hasattr(views, "setup"):
        views.setup(app)
    else:
        app.add_routes(views.routes)


async def _database(app: web.Application) -> AsyncIterator[None]:
    yield
    for database in (DATABASE, QUESTION_DATABASE, HEALTH_DATABASE):
        await app[database].dispose()


async def _workers(app: web.Application) -> AsyncIterator[None]:
    yield
    await app[DECODERS].close()
    await app[QUESTION_WORKERS].close()


async def _group_commit(app: web.Application) -> AsyncIterator[None]:
    ingest = app[INGEST]
    tasks = [asyncio.create_task(work) for work in (ingest.run(), ingest.refusals.run())]
    yield
    ingest.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await ingest.refusals.write()
