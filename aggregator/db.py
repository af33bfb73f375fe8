"""The one module that knows the database engine: connections, sessions, errors, migrations."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, MetaData, create_engine, exc, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Session

from aggregator.errors import (
    ConfigError,
    DatabaseError,
    DatabaseUnavailableError,
    MissingPartitionError,
    SchemaError,
    UnstorableError,
)

POOL_SIZE = 8
CONNECT_TIMEOUT_S = 10
POOL_TIMEOUT_S = 15
STATEMENT_TIMEOUT_MS = 60_000
_NO_PARTITION = "no partition of relation"


class Model(DeclarativeBase):
    """Base of every table. Constraint names are fixed, so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "%(table_name)s_%(column_0_N_name)s_idx",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
            "ck": "%(table_name)s_%(constraint_name)s_check",
            "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
            "pk": "%(table_name)s_pkey",
        }
    )


def engine_url(database_url: str) -> URL:
    """`database_url` (postgresql://...) with the psycopg driver that every engine here uses."""
    try:
        url = make_url(database_url)
    except exc.ArgumentError as error:
        raise ConfigError(f"database_url cannot be read: {error}") from error
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise ConfigError(f"database_url must be a postgresql:// URL, not {url.drivername}://")
    return url.set(drivername="postgresql+psycopg")


def create_database(
    database_url: str,
    pool_size: int = POOL_SIZE,
    statement_timeout_ms: int = STATEMENT_TIMEOUT_MS,
) -> AsyncEngine:
    """An asynchronous engine with a pool of its own, twice `pool_size` at most; it connects on
    first use. A statement whose caller is cancelled is cancelled in the database too."""
    options = _engine_options(pool_size, statement_timeout_ms)
    return create_async_engine(engine_url(database_url), **options)


def create_sync_database(database_url: str, pool_size: int = 2) -> Engine:
    """The engine of the worker and of commands."""
    return create_engine(engine_url(database_url), **_engine_options(pool_size))


def _engine_options(
    pool_size: int, statement_timeout_ms: int = STATEMENT_TIMEOUT_MS
) -> dict[str, Any]:
    return {
        "pool_size": pool_size,
        "max_overflow": pool_size,
        "pool_timeout": POOL_TIMEOUT_S,
        "pool_pre_ping": True,  # a restarted Postgres costs one round trip, not an error
        "connect_args": {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": "flamefleet",
            "options": f"-c statement_timeout={statement_timeout_ms} -c timezone=UTC",
        },
    }


@contextmanager
def session_scope(engine: Engine) -> Iterator[Session]:
    """One transaction: commit at the end, roll back on an error, driver errors translated."""
    with database_errors(), Session(engine, expire_on_commit=False) as session, session.begin():
        yield session


@asynccontextmanager
async def connection_scope(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """One transaction on one connection, like `session_scope`."""
    with database_errors():
        async with engine.begin() as connection:
            yield connection


async def driver_connection(connection: AsyncConnection) -> psycopg.AsyncConnection[Any]:
    """The psycopg connection under `connection`, in the same transaction: for COPY and arrays."""
    raw = await connection.get_raw_connection()
    driver = raw.driver_connection
    if not isinstance(driver, psycopg.AsyncConnection):
        raise DatabaseError(f"expected psycopg's asynchronous driver, found {type(driver)}")
    return driver


@contextmanager
def database_errors() -> Iterator[None]:
    """Turn errors of SQLAlchemy and psycopg into ours, once, at the edge."""
    try:
        yield
    except exc.DBAPIError as error:
        raise _translate(error.orig or error) from error
    except (exc.SQLAlchemyError, psycopg.Error) as error:
        raise _translate(error) from error
    except OSError as error:
        raise DatabaseUnavailableError(f"the database cannot be reached: {error}") from error


def _translate(error: BaseException) -> DatabaseError:
    words = str(error).strip().split("\n")[0] if str(error).strip() else type(error).__name__
    if isinstance(error, psycopg.errors.CheckViolation) and _NO_PARTITION in words:
        return MissingPartitionError(words)
    if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError, exc.TimeoutError)):
        return DatabaseUnavailableError(f"the database cannot serve this now: {words}")
    if isinstance(error, (psycopg.DataError, psycopg.IntegrityError)):
        return UnstorableError(f"the database cannot hold this: {words}")
    return DatabaseError(f"the database refused: {words}")


def migrations_folder() -> Path:
    """Where the migrations are: beside this package in a wheel, else in the checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "_migrations", package.parent / "migrations"):
        if (folder / "env.py").is_file():
            return folder
    raise DatabaseError(f"no migrations beside {package}: the installation is incomplete")


def _alembic_config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    if connection is not None:
        config.attributes["connection"] = connection
    return config


def run_migrations(database_url: str, revision: str = "head") -> None:
    """Bring the schema to `revision` ; several processes may call it at once."""
    engine = create_sync_database(database_url)
    try:
        with database_errors(), engine.connect() as connection:
            config = _alembic_config(connection)
            _require_known(current_revision(connection), config)
            connection.rollback()  # the migrations have transactions of their own
            command.upgrade(config, revision)
            connection.commit()
    finally:
        engine.dispose()


def _require_known(revision: str | None, config: Config) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise SchemaError(
            f"the database's schema is at {revision!r}, which this version does not know: another "
            "version of Flamefleet made it"
        )


def head_revision() -> str | None:
    """The newest migration that this code knows."""
    return ScriptDirectory.from_config(_alembic_config()).get_current_head()


def current_revision(connection: Connection) -> str | None:
    """The migration at which the database is; None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()
