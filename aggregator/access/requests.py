"""What views ask of a request before they look at its body: whose is it?"""

from aiohttp import web

from aggregator.access.errors import NodeMismatchError, UnknownTokenError
from aggregator.access.operators import identify_operator
from aggregator.access.service import NodeIdentity
from aggregator.app_keys import SESSIONS, TOKENS
from aggregator.db import database_errors

_SCHEME = "bearer"


async def authenticate(request: web.Request) -> NodeIdentity:
    """The node whose token the request carries. Raises UnknownTokenError (401)."""
    return await request.app[TOKENS].identify(_token(request))


async def authenticate_operator(request: web.Request) -> str:
    """The name of the operator whose token the request carries. Raises UnknownTokenError (401),
    also for a node's token."""
    token = _token(request)
    with database_errors():
        async with request.app[SESSIONS]() as session:
            return await identify_operator(session, token)


def check_node(node: NodeIdentity, claimed: str) -> None:
    """Raise NodeMismatchError (403) unless the message's node is the token's."""
    if claimed != node.name:
        raise NodeMismatchError(f"the token belongs to {node.name!r}, the message says {claimed!r}")


def _token(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != _SCHEME or not token.strip():
        raise UnknownTokenError("the request has no `Authorization: Bearer TOKEN` header")
    return token.strip()
