"""Tokens of operators: people and build systems that upload symbols or ask for profiles. No node
has one, and none of them is taken for a node."""

from hashlib import sha256
from secrets import token_urlsafe

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from aggregator.access.errors import AccessError, UnknownOperatorError, UnknownTokenError
from aggregator.access.models import OperatorToken
from aggregator.db import database_errors

TOKEN_PREFIX = "ffo_"  # lets secret scanners find a token that has leaked
TOKEN_BYTES = 32
MAX_TOKEN_LENGTH = 128
MAX_NAME_CHARS = 100


def create_operator_token(session: Session, name: str) -> str:
    """A new token for the operator `name`. It is not stored in the clear.

    Tokens that the operator already has stay valid. Raises AccessError for an unreadable name.
    """
    if not 1 <= len(name) <= MAX_NAME_CHARS or not name.isprintable():
        raise AccessError(
            f"an operator's name must have 1 to {MAX_NAME_CHARS} printable characters",
            remedy="use a person's or a build system's name",
        )
    token = TOKEN_PREFIX + token_urlsafe(TOKEN_BYTES)
    with database_errors():
        session.add(OperatorToken(name=name, token_sha256=_digest(token)))
        session.flush()
    return token


def revoke_operator_tokens(session: Session, name: str) -> int:
    """Revoke every token of the operator `name`, at once; returns how many.

    Raises UnknownOperatorError for a name that never had one.
    """
    with database_errors():
        if not session.scalar(select(func.count()).where(OperatorToken.name == name)):
            raise UnknownOperatorError(f"no operator is called {name!r}")
        revoked = session.scalars(
            update(OperatorToken)
            .where(OperatorToken.name == name, OperatorToken.revoked_at.is_(None))
            .values(revoked_at=func.now())
            .returning(OperatorToken.id)
        )
        return len(revoked.all())


async def identify_operator(session: AsyncSession, token: str) -> str:
    """The name of the operator that `token` was given to. Raises UnknownTokenError."""
    if not token or len(token) > MAX_TOKEN_LENGTH:
        raise UnknownTokenError("the token is empty or too long to be one", remedy=_REMEDY)
    query = select(OperatorToken.name).where(
        OperatorToken.token_sha256 == _digest(token), OperatorToken.revoked_at.is_(None)
    )
    name = (await session.execute(query)).scalar_one_or_none()
    if name is None:
        raise UnknownTokenError("the token is no operator's, or was revoked", remedy=_REMEDY)
    return name


_REMEDY = "run `flamefleet token create --operator NAME` at the centre and use that token"


def _digest(token: str) -> bytes:
    return sha256(token.encode(errors="replace")).digest()
