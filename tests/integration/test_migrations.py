"""Migrations against a real Postgres: they make what the models say, and can be run by many."""

import subprocess
import sys

import pytest
from alembic import command
from sqlalchemy import create_engine, text

from aggregator import db
from aggregator.db import create_sync_database, current_revision, head_revision, run_migrations
from aggregator.errors import ConfigError, DatabaseError, DatabaseUnavailableError, UnstorableError


@pytest.fixture
def engine(empty_postgres_url):
    engine = create_sync_database(empty_postgres_url)
    yield engine
    engine.dispose()


def test_models_and_migrations_agree(empty_postgres_url, engine):
    run_migrations(empty_postgres_url)

    with engine.connect() as connection:
        command.check(db._alembic_config(connection))  # raises where they differ
        assert current_revision(connection) == head_revision() is not None


def test_second_run_changes_nothing(empty_postgres_url, engine):
    run_migrations(empty_postgres_url)
    with engine.connect() as connection:
        before = connection.execute(text("SELECT oid, relname FROM pg_class ORDER BY oid")).all()

    run_migrations(empty_postgres_url)

    with engine.connect() as connection:
        after = connection.execute(text("SELECT oid, relname FROM pg_class ORDER BY oid")).all()
    assert after == before


def test_three_at_once_migrate_one_by_one(empty_postgres_url, engine):
    program = "import sys; from aggregator.db import run_migrations; run_migrations(sys.argv[1])"
    arguments = [sys.executable, "-c", program, empty_postgres_url]

    processes = [subprocess.Popen(arguments) for _ in range(3)]

    assert [process.wait() for process in processes] == [0, 0, 0]
    with engine.connect() as connection:
        assert current_revision(connection) == head_revision()


def test_down_and_up_again(empty_postgres_url, engine):
    run_migrations(empty_postgres_url)
    with engine.connect() as connection:
        command.downgrade(db._alembic_config(connection), "base")
        connection.commit()
        tables = text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        assert connection.scalars(tables).all() == ["alembic_version"]

    run_migrations(empty_postgres_url)

    with engine.connect() as connection:
        command.check(db._alembic_config(connection))


def test_a_locked_table_makes_a_migration_give_up(empty_postgres_url, engine, monkeypatch):
    run_migrations(empty_postgres_url)
    with engine.connect() as holder:
        holder.execute(text("LOCK TABLE nodes"))
        with engine.connect() as connection:
            with pytest.raises(Exception, match="lock timeout"):
                command.downgrade(db._alembic_config(connection), "base")
            connection.rollback()
    with engine.connect() as connection:
        assert current_revision(connection) == head_revision()
        locks = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        assert connection.scalar(locks) == 0


def test_blobs_are_not_compressed_twice(empty_postgres_url, engine):
    run_migrations(empty_postgres_url)
    with engine.connect() as connection:
        storage = text(
            "SELECT attname, attstorage FROM pg_attribute "
            "WHERE attrelid = 'node_prof_10'::regclass AND attname IN ('data', 'stack_ends')"
        )
        assert dict(connection.execute(storage).all()) == {"data": "e", "stack_ends": "e"}


def test_rows_from_before_stack_ends_have_none(empty_postgres_url, engine):
    run_migrations(empty_postgres_url)
    insert = text(
        "INSERT INTO node_prof (tier_s, bucket, node_id, part, samples, lost, covered_ms, "
        "weight_ns, data) VALUES (10, '2026-01-01T00:00:00Z', 1, 1, 1, 0, 1, 1, '')"
    )
    with engine.connect() as connection:
        command.downgrade(db._alembic_config(connection), "0002")
        connection.execute(
            text(
                "CREATE TABLE node_prof_10_2026 PARTITION OF node_prof_10 "
                "FOR VALUES FROM ('2026-01-01T00:00:00Z') TO ('2026-01-01T01:00:00Z')"
            )
        )
        connection.execute(insert)
        connection.commit()

    run_migrations(empty_postgres_url)

    with engine.connect() as connection:
        assert connection.scalar(text("SELECT stack_ends FROM node_prof")) == b""
        # An aggregator of the release before goes on writing beside the new one.
        connection.execute(text("UPDATE node_prof SET part = 2"))
        connection.execute(insert)
        assert connection.scalars(text("SELECT stack_ends FROM node_prof")).all() == [b"", b""]


def test_errors_are_translated(postgres_url):
    with pytest.raises(DatabaseUnavailableError, match="cannot serve"):
        run_migrations("postgresql://nobody@/nothing?host=/nonexistent")
    with pytest.raises(ConfigError, match="postgresql://"):
        run_migrations("sqlite:///x.db")
    engine = create_engine(postgres_url)
    with pytest.raises(DatabaseError, match="no_such_table"), db.session_scope(engine) as s:
        s.execute(text("SELECT * FROM no_such_table"))
    with pytest.raises(UnstorableError, match="division by zero"), db.session_scope(engine) as s:
        s.execute(text("SELECT 1/0"))
    engine.dispose()
