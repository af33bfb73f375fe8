"""Typed keys of what the aiohttp application holds; views take it from `request.app`."""

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from aggregator.access.service import TokenCache
from aggregator.config import CentreConfig
from aggregator.ingest.decoding import Decoders
from aggregator.ingest.group import GroupCommit
from aggregator.telemetry import Metrics
from aggregator.workers import Workers

CONFIG = web.AppKey("config", CentreConfig)
DATABASE = web.AppKey("database", AsyncEngine)  # what nodes send
QUESTION_DATABASE = web.AppKey("question_database", AsyncEngine)
HEALTH_DATABASE = web.AppKey("health_database", AsyncEngine)
SESSIONS: web.AppKey[async_sessionmaker[AsyncSession]] = web.AppKey("sessions", async_sessionmaker)
QUESTION_SESSIONS: web.AppKey[async_sessionmaker[AsyncSession]] = web.AppKey(
    "question_sessions", async_sessionmaker
)
METRICS = web.AppKey("metrics", Metrics)
TOKENS = web.AppKey("tokens", TokenCache)
INGEST = web.AppKey("ingest", GroupCommit)
DECODERS = web.AppKey("decoders", Decoders)
QUESTION_WORKERS = web.AppKey("question_workers", Workers)
