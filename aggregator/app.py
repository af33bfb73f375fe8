"""The aiohttp application: wires the parts together, and turns errors into answers."""

import asyncio
import importlib
import importlib.util
import ipaddress
import logging
import os
from collections.abc import AsyncIterator
from contextlib import suppress

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from sqlalchemy.ext.asyncio import async_sessionmaker

from aggregator.access.errors import ReadTokenError
from aggregator.access.reading import CHALLENGE, load_read_token, require_read_token
from aggregator.access.service import TokenCache
from aggregator.answers.compression import compress, setup_compression
from aggregator.answers.headers import add_headers
from aggregator.answers.hosts import host_names, require_own_host
from aggregator.app_keys import CONFIG, DATABASE, INGEST, METRICS, SESSIONS, TOKENS
from aggregator.broker_url import REMEDY, open_to_strangers
from aggregator.config import CentreConfig
from aggregator.db import create_database
from aggregator.errors import AggregatorError
from aggregator.ingest.group import GroupCommit
from aggregator.telemetry import Metrics, setup_tracing
from wire.errors import TooLargeError, UnsupportedVersionError, WireError

LOG = logging.getLogger(__name__)
RETRY_AFTER_S = 5
SHUTDOWN_TIMEOUT_S = 10.0
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
    middlewares: list[Middleware] = [compress, errors_as_json]
    if config.read_token_file:
        middlewares.append(require_read_token(load_read_token(config.read_token_file)))
    else:
        middlewares.append(require_own_host(host_names(config)))
    app = web.Application(middlewares=middlewares)
    app.on_response_prepare.append(add_headers)
    setup_compression(app)
    app[CONFIG] = config
    app[METRICS] = Metrics()
    app[DATABASE] = create_database(config.database_url)
    app[SESSIONS] = async_sessionmaker(app[DATABASE], expire_on_commit=False)
    app[TOKENS] = TokenCache(app[DATABASE])
    app[INGEST] = GroupCommit(app[DATABASE], app[METRICS], config.retention)
    app.cleanup_ctx.append(_database)
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
    web.run_app(
        app,
        host=config.host,
        port=config.port,
        shutdown_timeout=SHUTDOWN_TIMEOUT_S,
        access_log=None,  # a line for each of thousands of batches helps nobody; /metrics counts
        print=None,
    )


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error as `{"error": {"code", "message", "remedy"}}`, counted by its code."""
    try:
        return await handler(request)
    except AggregatorError as error:
        return _answer(request, error.status, error.code, error.message, error.remedy)
    except WireError as error:
        status, code = _wire_status(error)
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


def _wire_status(error: WireError) -> tuple[int, str]:
    if isinstance(error, TooLargeError):
        return 413, "too_large"
    if isinstance(error, UnsupportedVersionError):
        return 415, "unsupported_version"
    return 400, "malformed"


def _answer(
    request: web.Request, status: int, code: str, message: str, remedy: str
) -> web.Response:
    request.app[METRICS].refused.labels(code).inc()
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = CHALLENGE if code == ReadTokenError.code else "Bearer"
    if status == 503:
        headers["Retry-After"] = str(RETRY_AFTER_S)
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
    await app[DATABASE].dispose()


async def _group_commit(app: web.Application) -> AsyncIterator[None]:
    task = asyncio.create_task(app[INGEST].run())
    yield
    app[INGEST].close()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
