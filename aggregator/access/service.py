"""Enrolment tokens: made, revoked, and looked up by their SHA-256.

Only hashes are stored. The look-up compares hashes of 256 random bits, so its timing tells nothing
about a token.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from secrets import token_urlsafe

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from aggregator.access.errors import AccessError, UnknownNodeError, UnknownTokenError
from aggregator.access.models import NodeToken
from aggregator.db import database_errors
from aggregator.fleet.models import Node

TOKEN_PREFIX = "ffn_"  # lets secret scanners find a token that has leaked
TOKEN_BYTES = 32
MAX_TOKEN_LENGTH = 128
MAX_NAME_BYTES = 253
KNOWN_FOR_S = 30.0  # so long may a revoked token still be taken
UNKNOWN_FOR_S = 5.0
CACHE_SIZE = 10_000  # of known tokens, and as many unknown ones: each is a digest and two texts


@dataclass(frozen=True)
class NodeIdentity:
    """The node that a token was given to."""

    id: int
    name: str


def create_token(session: Session, node_name: str) -> str:
    """A new token for `node_name`, which is enrolled if need be. It is not stored in the clear.

    Tokens that the node already has stay valid. Raises AccessError for a name that no batch could
    carry. Use `await async_session.run_sync(create_token, name)` from asynchronous code.
    """
    if not 1 <= len(node_name.encode()) <= MAX_NAME_BYTES or "\0" in node_name:
        raise AccessError(
            f"a node's name must have 1 to {MAX_NAME_BYTES} bytes without NUL, not {node_name!r}",
            remedy="use the host's name",
        )
    token = TOKEN_PREFIX + token_urlsafe(TOKEN_BYTES)
    with database_errors():
        back = {"removed_at": None, "removed_by": None}
        enrol = insert(Node).values(name=node_name)
        session.execute(enrol.on_conflict_do_update(index_elements=["name"], set_=back))
        node_id = session.scalars(select(Node.id).where(Node.name == node_name)).one()
        session.add(NodeToken(node_id=node_id, token_sha256=_digest(token)))
        session.flush()
    return token


def revoke_tokens(session: Session, node_name: str) -> int:
    """Revoke every token of `node_name`; returns how many. Takes effect within KNOWN_FOR_S."""
    with database_errors():
        node_id = session.scalars(select(Node.id).where(Node.name == node_name)).one_or_none()
        if node_id is None:
            raise UnknownNodeError(f"no node is called {node_name!r}")
        revoked = session.scalars(
            update(NodeToken)
            .where(NodeToken.node_id == node_id, NodeToken.revoked_at.is_(None))
            .values(revoked_at=func.now())
            .returning(NodeToken.id)
        )
        return len(revoked.all())


class TokenCache:
    """Nodes by token, looked up in the database and remembered for a short time."""

    def __init__(self, database: AsyncEngine, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        # Apart, so that whoever tries tokens pushes out none that is good.
        self._known: OrderedDict[bytes, tuple[float, NodeIdentity | None]] = OrderedDict()
        self._unknown: OrderedDict[bytes, tuple[float, NodeIdentity | None]] = OrderedDict()

    async def identify(self, token: str) -> NodeIdentity:
        """The node of `token`. Raises UnknownTokenError, also for a revoked one."""
        if not token or len(token) > MAX_TOKEN_LENGTH:
            raise UnknownTokenError("the token is empty or too long to be one")
        digest = _digest(token)
        expires, node = self._known.get(digest) or self._unknown.get(digest) or (0.0, None)
        if expires <= self._clock():
            node = await self._look_up(digest)
            self._remember(digest, node)
        if node is None:
            raise UnknownTokenError("the token is unknown or was revoked")
        return node

    def clear(self) -> None:
        """Look every token up again."""
        self._known.clear()
        self._unknown.clear()

    def __len__(self) -> int:
        return len(self._known) + len(self._unknown)

    async def _look_up(self, digest: bytes) -> NodeIdentity | None:
        query = (
            select(Node.id, Node.name)
            .join(NodeToken, NodeToken.node_id == Node.id)
            .where(NodeToken.token_sha256 == digest, NodeToken.revoked_at.is_(None))
        )
        with database_errors():
            async with AsyncSession(self._database) as session:
                row = (await session.execute(query)).one_or_none()
        return None if row is None else NodeIdentity(row[0], row[1])

    def _remember(self, digest: bytes, node: NodeIdentity | None) -> None:
        lasts = KNOWN_FOR_S if node is not None else UNKNOWN_FOR_S
        table, other = self._known, self._unknown
        if node is None:
            table, other = other, table
        other.pop(digest, None)
        table[digest] = (self._clock() + lasts, node)
        table.move_to_end(digest)
        while len(table) > CACHE_SIZE:
            table.popitem(last=False)


def _digest(token: str) -> bytes:
    return sha256(token.encode(errors="replace")).digest()
