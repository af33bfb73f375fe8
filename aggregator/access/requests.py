"""What views ask of a request before they look at its body: whose is it?"""

from aiohttp import web

from aggregator.access.errors import NodeMismatchError, UnknownTokenError
from aggregator.access.service import NodeIdentity
from aggregator.app_keys import TOKENS

_SCHEME = "bearer"


async def authenticate(request: web.Request) -> NodeIdentity:
    """The node whose token the request carries. Raises UnknownTokenError (401)."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != _SCHEME or not token.strip():
        raise UnknownTokenError("the request has no `Authorization: Bearer TOKEN` header")
    return await request.app[TOKENS].identify(token.strip())


def check_node(node: NodeIdentity, claimed: str) -> None:
    """Raise NodeMismatchError (403) unless the message's node is the token's."""
    if claimed != node.name:
        raise NodeMismatchError(f"the token belongs to {node.name!r}, the message says {claimed!r}")
