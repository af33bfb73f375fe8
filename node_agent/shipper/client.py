"""HTTP to the centre: one kept-alive connection, no redirects, bounded answers.

`http.client` imports `ssl` (8 MB of resident memory) whether it is needed or not, so for plain
http the import is kept out; the https connection is built here instead of using HTTPSConnection.
"""

import contextlib
import io
import os
import sys
import time
from email.utils import formatdate
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple
from urllib.parse import urlsplit

from node_agent import VERSION
from node_agent.shipper.errors import CredentialError, DeliveryError
from node_agent.shipper.proxy import Proxy
from wire import limits
from wire.codec import CONTENT_TYPE

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse

READINESS = "/readyz"
_MAX_TOKEN_BYTES = 4096
_ANSWER_DEADLINES = 6  # a whole answer may take this many timeouts, drop by drop
_READ_BYTES = 1 << 16


class Response(NamedTuple):
    """An answer. `retry_after` is the header as it came."""

    status: int
    retry_after: str | None
    body: bytes


def read_token(path: Path) -> str:
    """The token in the file at `path`. Raises CredentialError, whose words never hold the token."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_TOKEN_BYTES + 1)
    except OSError as error:
        raise CredentialError(
            f"cannot read the token file {path}: {error.strerror}",
            "Put the token there that `flamefleet token create NODE` prints at the centre, for "
            "this user only to read.",
        ) from error
    token = data.decode("latin-1").strip()
    if not token or len(data) > _MAX_TOKEN_BYTES or not token.isascii() or not token.isprintable():
        raise CredentialError(
            f"the token file {path} must hold one line of printable text",
            "Put the token there that `flamefleet token create NODE` prints at the centre.",
        )
    return token


class Client:
    """Posts messages to the aggregator at `url`, by way of `proxy` where there is one; not for
    several threads."""

    def __init__(
        self,
        url: str,
        token_file: Path,
        ca_file: Path | None,
        timeout_s: float,
        proxy: Proxy | None = None,
    ) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port
        self._path = parts.path.rstrip("/")
        self._token_file, self._timeout_s, self._proxy = token_file, timeout_s, proxy
        self._tls: Any = _tls_context(ca_file) if parts.scheme == "https" else None
        self._http = _import_http_client(with_ssl=self._tls is not None)
        self._connection: HTTPConnection | None = None
        self._aborted = False
        if proxy is not None and self._tls is None:
            self._path = url.rstrip("/")  # a proxy wants the whole address (RFC 9112, 3.2.2)
        self.url = url

    def post(self, path: str, body: BinaryIO, accept: str = "") -> Response:
        """Send `body` (from its start to its end) to `path` and return the answer; `accept` says
        which ones are understood, where that is more than the body tells.

        Raises DeliveryError without a complete answer, CredentialError without a token.
        """
        size = body.seek(0, io.SEEK_END)
        headers = {
            "Authorization": f"Bearer {read_token(self._token_file)}",
            "Content-Type": CONTENT_TYPE,
            "Content-Length": str(size),
            "User-Agent": f"flamefleet-agent/{VERSION}",
        }
        if accept:
            headers["Accept"] = accept
        return self._request("POST", path, body, headers)

    def is_ready(self) -> bool:
        """Whether the centre says that it can work (`GET /readyz`)."""
        headers = {"User-Agent": f"flamefleet-agent/{VERSION}"}
        try:
            return self._request("GET", READINESS, None, headers).status == 200
        except DeliveryError:
            return False

    def close(self) -> None:
        """Close the connection; the next post opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def abort(self) -> None:
        """Make a post that is under way fail at once; may be called by a signal handler."""
        self._aborted = True
        sock = getattr(self._connection, "sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(2)

    def _request(
        self, method: str, path: str, body: BinaryIO | None, headers: dict[str, str]
    ) -> Response:
        if self._proxy is not None and self._proxy.authorization and self._tls is None:
            headers["Proxy-Authorization"] = self._proxy.authorization
        try:
            return self._attempt(method, self._path + path, body, headers)
        except (OSError, self._http.HTTPException) as error:
            self.close()
            through = f" (through the proxy {self._proxy.host})" if self._proxy else ""
            raise DeliveryError(
                f"{self.url} gave no answer{through}: {_words(error)}",
                "Check that the aggregator runs and that this host reaches it.",
            ) from error

    def _attempt(
        self, method: str, path: str, body: BinaryIO | None, headers: dict[str, str]
    ) -> Response:
        reused = self._connection is not None
        try:
            return self._exchange(method, path, body, headers)
        except (self._http.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            # The centre may have closed a kept-alive connection between two batches. Sending
            # once more is safe: a batch that it has already is a duplicate to it.
            self.close()
            if not reused or self._aborted:
                raise
            return self._exchange(method, path, body, headers)

    def _exchange(
        self, method: str, path: str, body: BinaryIO | None, headers: dict[str, str]
    ) -> Response:
        if self._connection is None:
            self._connection = self._open()
        connection = self._connection
        if body is not None:
            body.seek(0)
        # The centre records from it how far this host's clock is off (RFC 9110, 6.6.1).
        headers = {**headers, "Date": formatdate(usegmt=True)}
        try:
            connection.request(method, path, body=body, headers=headers)
        except (BrokenPipeError, ConnectionResetError):
            # A server may answer (413) and close before it has read everything.
            with contextlib.suppress(OSError, self._http.HTTPException):
                return self._read(connection.getresponse())
            raise
        return self._read(connection.getresponse())

    def _read(self, response: "HTTPResponse") -> Response:
        deadline = time.monotonic() + _ANSWER_DEADLINES * self._timeout_s
        data = bytearray()
        while chunk := response.read1(_READ_BYTES):
            data += chunk
            if len(data) > limits.MAX_BATCH_BYTES:
                raise self._http.HTTPException("the answer is too large")
            if time.monotonic() > deadline:
                raise TimeoutError("the answer came too slowly")
        if response.length:
            raise self._http.IncompleteRead(bytes(data[:20]), response.length)
        response.close()  # the next request is refused while this one counts as unread
        if response.will_close:
            self.close()
        return Response(response.status, response.getheader("Retry-After"), bytes(data))

    def _open(self) -> "HTTPConnection":
        host, port = self._host, self._port or (443 if self._tls is not None else 80)
        proxy = self._proxy
        connection: HTTPConnection = self._http.HTTPConnection(
            proxy.host if proxy else host, proxy.port if proxy else port, timeout=self._timeout_s
        )
        if proxy is not None and self._tls is not None:  # the proxy sees bytes of TLS only
            own = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
            connection.set_tunnel(host, port, own)
        connection.auto_open = 0  # it would reopen without TLS
        connection.connect()
        if self._tls is not None:
            plain = connection.sock
            try:
                connection.sock = self._tls.wrap_socket(plain, server_hostname=self._host)
            except BaseException:
                plain.close()
                raise
        return connection


def _import_http_client(*, with_ssl: bool) -> ModuleType:
    if with_ssl or "ssl" in sys.modules or "http.client" in sys.modules:
        import http.client

        return http.client
    sys.modules["ssl"] = None  # type: ignore[assignment]  # makes `import ssl` an ImportError
    try:
        import http.client
    finally:
        del sys.modules["ssl"]
    return http.client


def _tls_context(ca_file: Path | None) -> Any:
    import ssl

    try:
        context = ssl.create_default_context(cafile=os.fspath(ca_file) if ca_file else None)
    except (OSError, ssl.SSLError) as error:
        raise CredentialError(
            f"cannot use the CA file {ca_file}: {_words(error)}",
            "Name a readable file of PEM certificates as ca_file.",
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _words(error: BaseException) -> str:
    strerror = getattr(error, "strerror", None)
    return str(strerror or error or type(error).__name__)
