"""The centre's commands as a program runs them: exit statuses, output, errors with a remedy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from aggregator.db import head_revision


def flamefleet(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `flamefleet`, with no FLAMEFLEET_ variables but those given."""
    kept = {name: value for name, value in os.environ.items() if "FLAMEFLEET" not in name}
    return subprocess.run(
        [str(Path(sys.executable).with_name("flamefleet")), *arguments],
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def centre(database_url: str) -> dict[str, str]:
    return {"FLAMEFLEET_DATABASE_URL": database_url, "FLAMEFLEET_BROKER_URL": "redis://unused"}


def test_an_empty_database_is_upgraded_once_and_again(empty_postgres_url: str) -> None:
    environment = centre(empty_postgres_url)
    before = flamefleet("db", "current", **environment)
    assert (before.returncode, before.stdout.split()[0]) == (1, "empty")
    for _ in range(2):
        upgraded = flamefleet("db", "upgrade", **environment)
        assert upgraded.returncode == 0, upgraded.stderr
        assert str(head_revision()) in upgraded.stdout
    after = flamefleet("db", "current", **environment)
    assert (after.returncode, after.stdout.split()[0]) == (0, head_revision())


def test_tokens_are_made_and_revoked(postgres_url: str) -> None:
    environment = centre(postgres_url)
    plain = flamefleet("token", "create", "web-1", **environment)
    assert plain.returncode == 0, plain.stderr
    spoken = flamefleet("token", "create", "web-1", "--json", **environment)
    answer = json.loads(spoken.stdout)
    assert answer["node"] == "web-1"
    assert answer["token"] != plain.stdout.strip()
    engine = create_engine(postgres_url)
    with engine.connect() as connection:
        stored = connection.execute(text("SELECT token_sha256, revoked_at FROM node_tokens")).all()
    assert len(stored) == 2
    assert all(row.revoked_at is None for row in stored)
    assert answer["token"].encode() not in {bytes(row.token_sha256) for row in stored}
    revoked = flamefleet("token", "revoke", "web-1", "--json", **environment)
    assert json.loads(revoked.stdout) == {"node": "web-1", "revoked": 2}
    with engine.connect() as connection:
        still = connection.execute(
            text("SELECT count(*) FROM node_tokens WHERE revoked_at IS NULL")
        ).scalar_one()
    engine.dispose()
    assert still == 0


def test_tokens_of_an_unknown_node_cannot_be_revoked(postgres_url: str) -> None:
    failed = flamefleet("token", "revoke", "nobody-knows-it", **centre(postgres_url))
    assert failed.returncode == 1
    assert "nobody-knows-it" in failed.stderr
    assert "what to do:" in failed.stderr


@pytest.mark.parametrize("command", [("serve",), ("worker",), ("db", "upgrade")])
def test_a_missing_setting_is_named(command: tuple[str, ...]) -> None:
    failed = flamefleet(*command)
    assert failed.returncode == 2
    assert "database_url is not set" in failed.stderr
    assert "FLAMEFLEET_DATABASE_URL" in failed.stderr


def test_a_database_that_is_not_there_is_told_in_words(tmp_path: Path) -> None:
    failed = flamefleet("db", "upgrade", **centre(f"postgresql://x@/x?host={tmp_path}"))
    assert failed.returncode == 1
    assert "check that Postgres runs" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("up", "--for", "soon"), "60s, 5m or 1h"),
        (("up", "--preset", "fast"), "invalid choice"),
        (("up", "--port", "x"), "1 to 65535"),
        (("up", "--port", "70000"), "1 to 65535"),
        (("up", "--webhook", "ftp://x"), "http://"),
        (("serve", "--config", "/nonexistent"), "with --config"),
        (("db", "current", "--database-url", "sqlite:///x", "--broker-url", "redis://x"), "mend"),
        (("worker", "--database-url", "postgresql://x", "--broker-url", "x"), "redis://HOST:6379"),
        (("fly",), "invalid choice"),
        ((), "required"),
    ],
)
def test_wrong_flags_are_refused_with_words(arguments: tuple[str, ...], words: str) -> None:
    failed = flamefleet(*arguments)
    assert failed.returncode != 0
    assert words in failed.stderr
    assert "Traceback" not in failed.stderr


def test_the_command_starts_without_the_centres_packages() -> None:
    """--help has to answer at once: what costs a second to import is imported by what needs it."""
    code = (
        "import sys; from aggregator.cli import build_parser; build_parser();"
        "heavy = {'sqlalchemy', 'aiohttp', 'celery', 'numpy', 'psycopg'} & set(sys.modules);"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr


def test_a_schema_of_another_version_is_refused_in_words(postgres_url: str) -> None:
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'z999'"))
    engine.dispose()
    for _ in range(2):
        failed = flamefleet("db", "upgrade", **centre(postgres_url))
        assert failed.returncode == 1
        assert "'z999', which this version does not know" in failed.stderr
        assert "another database" in failed.stderr
        assert "Traceback" not in failed.stderr
