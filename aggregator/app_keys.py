"""Typed keys of what the aiohttp application holds; views take it from `request.app`."""

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from aggregator.access.service import TokenCache
from aggregator.config import CentreConfig
from aggregator.incarnation import Incarnation
from aggregator.ingest.group import GroupCommit
from aggregator.telemetry import Metrics

CONFIG = web.AppKey("config", CentreConfig)
DATABASE = web.AppKey("database", AsyncEngine)
SESSIONS: web.AppKey[async_sessionmaker[AsyncSession]] = web.AppKey("sessions", async_sessionmaker)
INCARNATION = web.AppKey("incarnation", Incarnation)
METRICS = web.AppKey("metrics", Metrics)
TOKENS = web.AppKey("tokens", TokenCache)
INGEST = web.AppKey("ingest", GroupCommit)
