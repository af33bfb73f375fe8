"""Who may read: with a read token configured, every question and the page need it.

The token is taken as `Authorization: Bearer TOKEN`, or as the password of HTTP basic
authentication (RFC 7617; the user's name is not looked at), which browsers ask for by themselves
and Grafana and `curl -u` can send. What writes (POST) has its own tokens; health and metrics hold
no profile and are for load balancers and Prometheus.
"""

import base64
import binascii
import hmac
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from aggregator.access.errors import ReadTokenError
from aggregator.errors import ConfigError

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
CHALLENGE = 'Basic realm="Flamefleet", charset="UTF-8"'
LEAST_CHARACTERS = 16
MOST_BYTES = 4096


def load_read_token(path: str) -> bytes:
    """The token in the file at `path`. Raises ConfigError, whose words never hold the token."""
    try:
        with Path(path).open("rb") as file:
            token = file.read(MOST_BYTES + 1).strip()
    except OSError as error:
        raise ConfigError(f"read_token_file: cannot read {path}: {error.strerror}") from error
    if not (LEAST_CHARACTERS <= len(token) <= MOST_BYTES) or not _is_one_word(token):
        raise ConfigError(
            f"read_token_file: {path} must hold one word of {LEAST_CHARACTERS} or more characters",
            remedy="for example `openssl rand -hex 32`, readable by the aggregator only",
        )
    return token


def require_read_token(token: bytes) -> Middleware:
    """The middleware that refuses to read without `token` (401)."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method in ("GET", "HEAD") and request.path not in OPEN_PATHS:
            given = _given(request.headers.get("Authorization", ""))
            if given is None:
                raise ReadTokenError("this aggregator wants its read token")
            if not hmac.compare_digest(given, token):
                raise ReadTokenError("the read token is wrong")
        return await handler(request)

    return check


def _given(authorization: str) -> bytes | None:
    """The token in an Authorization header, None where there is none."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip().encode(errors="replace")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(rest.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    return decoded.partition(b":")[2]


def _is_one_word(token: bytes) -> bool:
    return token.isascii() and all(33 <= byte <= 126 for byte in token)
