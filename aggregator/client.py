"""Speaking to a centre over HTTP, as `flamefleet symbols upload` and `flamefleet profile` do."""

import argparse
import http.client
import json
import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from aggregator.config import DEFAULT_PORT
from aggregator.errors import AggregatorError, ConfigError
from aggregator.local.running import running_url

TOKEN_VARIABLE = "FLAMEFLEET_OPERATOR_TOKEN"
DEFAULT_URL = f"http://127.0.0.1:{DEFAULT_PORT}"
TIMEOUT_S = 60.0


class CentreError(AggregatorError):
    """The centre cannot be reached, or it refused; `status` is its answer's, 0 for none."""

    code = "centre"
    remedy = "name the centre's address with --url http://HOST:PORT; check that it runs"

    def __init__(self, message: str, *, answered: int = 0, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.answered = answered


@dataclass(frozen=True)
class Centre:
    """Where a centre is and what it knows a person by. `token` is an operator's; `read_token` goes
    with questions where the centre wants one."""

    url: str = DEFAULT_URL
    token: str = field(default="", repr=False)
    read_token: str = field(default="", repr=False)
    ca_file: Path | None = None

    def ask(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> bytes:
        """The body of the answer to a request; `body` is sent as JSON. Raises CentreError."""
        if parameters:
            path += f"?{urlencode(parameters)}"
        token = self.read_token if method == "GET" else self.token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        data = None if body is None else json.dumps(body).encode()
        with reach(self.url), self.connect(TIMEOUT_S) as connection:
            connection.request(method, f"{self.prefix}{path}", data, headers)
            response = connection.getresponse()
            answer = response.read()
        if response.status >= 300:
            raise refusal(response.status, answer)
        return answer

    def ask_json(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> dict[str, Any]:
        """`ask` for an answer that is a JSON object."""
        try:
            answer = json.loads(self.ask(method, path, parameters, body))
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise CentreError(f"{self.url} does not answer as an aggregator does")
        return answer

    @property
    def prefix(self) -> str:
        """The path that every path of the centre begins with."""
        return urlsplit(self.url).path.rstrip("/")

    @contextmanager
    def connect(self, timeout_s: float) -> Iterator[http.client.HTTPConnection]:
        """A connection, closed in the end; certificates are checked. Raises CentreError for what
        is no address."""
        try:
            parts = urlsplit(self.url)
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = urlsplit(""), None, None
        if parts.scheme not in ("http", "https") or not host:
            raise CentreError(
                f"{self.url!r} is no address", remedy="give http://HOST:PORT or https://"
            )
        connection: http.client.HTTPConnection
        if parts.scheme == "http":
            connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
        else:
            context = ssl.create_default_context(cafile=self.ca_file)
            connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
        try:
            yield connection
        finally:
            connection.close()


@contextmanager
def reach(url: str) -> Iterator[None]:
    """Turn what goes wrong on the way to the centre into a CentreError."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise CentreError(
            f"the certificate of {url} is not trusted: {error.verify_message}",
            remedy="name the authority's certificate with --ca-file",
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise CentreError(f"{url} cannot be reached: {error}") from error


def refusal(status: int, body: bytes) -> CentreError:
    """The error that the centre answered, in its own words."""
    try:
        error = json.loads(body)["error"]
        return CentreError(str(error["message"]), answered=status, remedy=str(error["remedy"]))
    except (ValueError, KeyError, TypeError):
        return CentreError(f"the centre answered {status}", answered=status)


def add_centre_address(parser: Any) -> None:
    """Add the flags that `read_centre` reads to a command's parser."""
    parser.add_argument(
        "--url", help=f"the centre; default: that of `flamefleet up` here, else {DEFAULT_URL}"
    )
    token = parser.add_mutually_exclusive_group()
    token.add_argument("--token", metavar="TOKEN", help=f"an operator's; or {TOKEN_VARIABLE}")
    token.add_argument("--token-file", type=Path, metavar="FILE")
    parser.add_argument("--ca-file", type=Path, metavar="FILE", help="trusted for https://")


def read_centre(options: argparse.Namespace, what: str) -> Centre:
    """The centre that the flags and the environment name; `what` needs an operator's token. Raises
    ConfigError."""
    token = options.token or os.environ.get(TOKEN_VARIABLE, "")
    if options.token_file is not None:
        token = read_token_file(options.token_file)
    if not token.strip() or not token.strip().isascii():
        raise ConfigError(
            f"{what} needs an operator's token",
            remedy=f"give --token-file or {TOKEN_VARIABLE}; "
            "`flamefleet token create --operator NAME` makes one",
        )
    read_token = ""
    if getattr(options, "read_token_file", None) is not None:
        read_token = read_token_file(options.read_token_file).strip()
    url = options.url or running_url() or DEFAULT_URL
    return Centre(url, token.strip(), read_token, options.ca_file)


def read_token_file(path: Path) -> str:
    """The content of a file with a token. Raises ConfigError."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
