"""Enrolment tokens on a real Postgres."""

from hashlib import sha256

import pytest

from aggregator.access.errors import AccessError, UnknownNodeError, UnknownTokenError
from aggregator.access.service import (
    CACHE_SIZE,
    KNOWN_FOR_S,
    UNKNOWN_FOR_S,
    TokenCache,
    create_token,
    revoke_tokens,
)
from aggregator.db import create_database, session_scope
from aggregator.errors import DatabaseUnavailableError


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def tokens(postgres_url, clock):
    engine = create_database(postgres_url)
    yield TokenCache(engine, clock)
    await engine.dispose()


def test_token_is_stored_as_a_hash_only(enrol, rows):
    token = enrol("web-1")

    [(stored,)] = rows("SELECT token_sha256 FROM node_tokens")
    assert stored == sha256(token.encode()).digest()
    assert rows("SELECT name FROM nodes") == [("web-1",)]


async def test_every_token_of_a_node_identifies_it(enrol, tokens, rows):
    first, second = enrol("web-1"), enrol("web-1")
    other = enrol("web-2")

    assert first != second
    assert {(await tokens.identify(t)).name for t in (first, second)} == {"web-1"}
    assert (await tokens.identify(other)).name == "web-2"
    assert rows("SELECT count(*)::int FROM nodes") == [(2,)]


@pytest.mark.parametrize("change", ["", "x", "ffn_", "é" * 20, "a" * 200])
async def test_unknown_tokens(enrol, tokens, change):
    enrol("web-1")

    with pytest.raises(UnknownTokenError):
        await tokens.identify(change)


async def test_token_without_its_last_character(enrol, tokens):
    token = enrol("web-1")

    with pytest.raises(UnknownTokenError):
        await tokens.identify(token[:-1])


async def test_revoked_token_is_refused_when_the_cache_expires(enrol, database, tokens, clock):
    old, kept = enrol("web-1"), enrol("web-2")
    await tokens.identify(old)

    with session_scope(database) as session:
        assert revoke_tokens(session, "web-1") == 1
    with session_scope(database) as session:
        assert revoke_tokens(session, "web-1") == 0
    new = enrol("web-1")

    clock.now += KNOWN_FOR_S + 1
    with pytest.raises(UnknownTokenError):
        await tokens.identify(old)
    assert (await tokens.identify(new)).name == "web-1"
    assert (await tokens.identify(kept)).name == "web-2"


async def test_known_token_needs_no_database_for_a_while(enrol, tokens, clock, rows):
    token = enrol("web-1")
    await tokens.identify(token)
    rows("DELETE FROM node_tokens")

    clock.now += KNOWN_FOR_S - 1
    assert (await tokens.identify(token)).name == "web-1"
    clock.now += 2
    with pytest.raises(UnknownTokenError):
        await tokens.identify(token)


async def test_unknown_token_is_looked_up_again_soon(enrol, tokens, clock, rows):
    token = enrol("web-1")
    rows("UPDATE node_tokens SET revoked_at = now()")
    with pytest.raises(UnknownTokenError):
        await tokens.identify(token)
    rows("UPDATE node_tokens SET revoked_at = NULL")

    clock.now += UNKNOWN_FOR_S + 1
    assert (await tokens.identify(token)).name == "web-1"


async def test_cache_is_bounded(enrol, tokens, monkeypatch):
    assert CACHE_SIZE > 100
    monkeypatch.setattr("aggregator.access.service.CACHE_SIZE", 3)
    token = enrol("web-1")
    await tokens.identify(token)
    for number in range(10):
        with pytest.raises(UnknownTokenError):
            await tokens.identify(f"ffn_{number}")

    assert len(tokens) == 1 + 3  # those that are tried push out none that is known


async def test_unreachable_database_is_not_an_unknown_token():
    engine = create_database("postgresql://nobody@/nothing?host=/nonexistent")
    with pytest.raises(DatabaseUnavailableError):
        await TokenCache(engine).identify("ffn_x")
    await engine.dispose()


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 254])
def test_name_that_no_batch_could_carry(database, rows, name):
    with pytest.raises(AccessError), session_scope(database) as session:
        create_token(session, name)

    assert rows("SELECT count(*)::int FROM nodes") == [(0,)]


def test_revoking_for_an_unknown_node(database):
    with pytest.raises(UnknownNodeError, match="web-9"), session_scope(database) as session:
        revoke_tokens(session, "web-9")
