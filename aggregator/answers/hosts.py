"""Which names the aggregator answers questions under.

A page of a stranger can point its own name at the loopback address (DNS rebinding) and then ask
there as if it were the page of the aggregator. The browser still sends the stranger's name. What
is an address and no name cannot be pointed elsewhere.

A request that writes (POST, DELETE) needs a token that such a page has not; health and metrics
hold no profile. With a read token nothing is to be had without it either.
"""

import ipaddress
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from aggregator.access.reading import OPEN_PATHS
from aggregator.config import CentreConfig
from aggregator.errors import AggregatorError


class ForeignHostError(AggregatorError):
    """A question under a name that is not the aggregator's (421, RFC 9110)."""

    status = 421
    code = "foreign_host"
    remedy = (
        "name it in allowed_hosts of the aggregator's configuration, or set public_url to the "
        "address that browsers use; or ask under localhost or the address itself"
    )


def host_names(config: CentreConfig) -> frozenset[str]:
    """The names that the configuration knows of, in lower case."""
    names = {"localhost", config.host, *config.allowed_hosts}
    names.add(urlsplit(config.public_url).hostname or "")
    return frozenset(name.lower().rstrip(".") for name in names if name)


def require_own_host(names: frozenset[str]) -> Middleware:
    """The middleware that refuses questions under other names than `names` (421)."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method in ("GET", "HEAD") and request.path not in OPEN_PATHS:
            host = _host(request.headers.get("Host", ""))
            if host not in names and not _is_address(host):
                raise ForeignHostError(f"this aggregator is not known as {host[:80]!r}")
        return await handler(request)

    return check


def _host(header: str) -> str:
    """The name or address in a Host header, without its port."""
    try:
        return (urlsplit(f"//{header}").hostname or "").rstrip(".")
    except ValueError:
        return header


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
