"""Sends one webhook message: one POST, to a checked address, without redirects, in bounded time.

The body of an answer is never read, and http.client bounds its head.
"""

import http.client
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Sequence
from urllib.parse import SplitResult, unquote, urlsplit

from aggregator.alerts.addresses import checked_addresses
from aggregator.alerts.errors import DeliveryError, UnreachableError
from aggregator.alerts.signature import signed_headers
from aggregator.config import Webhook

CONNECT_TIMEOUT_S = 5.0
TOTAL_TIMEOUT_S = 15.0
USER_AGENT = "flamefleet"


def send_webhook(webhook: Webhook, webhook_id: str, body: bytes, attempt: int = 1) -> int:
    """POST `body`; the 2xx status of the answer.

    All addresses of the host are tried until one takes the connection. `attempt` (1 or more) turns
    their order, so that one which takes it and then says nothing does not stand before the others
    each time. Raises UnreachableError without an answer, DeliveryError for any other status: the
    same message, with the same id, may be sent again.
    """
    deadline_s = time.monotonic() + TOTAL_TIMEOUT_S
    parts, host, port = _target(webhook.url)
    addresses = checked_addresses(host, port, webhook.allow_private, TOTAL_TIMEOUT_S)
    first = (attempt - 1) % len(addresses)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
        **_authorization(parts),
        **signed_headers(webhook.secret, webhook_id, int(time.time()), body),
    }
    turned = addresses[first:] + addresses[:first]
    connection = _Connection(host, port, turned, parts.scheme == "https", deadline_s)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    # A socket's timeout starts anew with every byte; a receiver that drips must not hold us.
    guard = threading.Timer(max(deadline_s - time.monotonic(), 0), connection.abort)
    guard.daemon = True
    guard.start()
    try:
        connection.request("POST", path, body, headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = f"no answer within {TOTAL_TIMEOUT_S:g} s" if connection.aborted else repr(error)
        raise UnreachableError(f"{parts.netloc.rpartition('@')[2]}: {reason}") from error
    finally:
        guard.cancel()
        connection.close()
    if not 200 <= status < 300:
        also = "; redirects are not followed" if 300 <= status < 400 else ""
        raise DeliveryError(f"{parts.netloc.rpartition('@')[2]} answered {status}{also}")
    return status


class _Connection(http.client.HTTPConnection):
    """A connection to one of `addresses`, which speaks to it (and checks its certificate) as
    `host`."""

    def __init__(
        self, host: str, port: int, addresses: Sequence[str], tls: bool, deadline_s: float
    ) -> None:
        super().__init__(host, port, timeout=TOTAL_TIMEOUT_S)
        self._addresses = addresses
        self._deadline_s = deadline_s
        self._tls = ssl.create_default_context() if tls else None
        if tls:
            self.default_port = 443  # leaves ":443" out of the Host header
        self.aborted = False

    def connect(self) -> None:
        failed: list[str] = []
        for at, address in enumerate(self._addresses):
            left_s = max(self._deadline_s - time.monotonic(), 0.01)
            share_s = min(CONNECT_TIMEOUT_S, left_s / (len(self._addresses) - at))
            try:
                self._connect_to(address, share_s)
                return
            except OSError as error:  # TLS's too
                if self.aborted:
                    raise
                failed.append(f"{address}: {error}")
        raise OSError("; ".join(failed))

    def _connect_to(self, address: str, timeout_s: float) -> None:
        self.sock = socket.create_connection((address, self.port), timeout_s)
        if self._tls is not None:
            # The handshake comes after `self.sock` is the socket that `abort` can end.
            self.sock = self._tls.wrap_socket(
                self.sock, server_hostname=self.host, do_handshake_on_connect=False
            )
            self._raise_if_aborted()
            self.sock.do_handshake()
        self.sock.settimeout(TOTAL_TIMEOUT_S)
        self._raise_if_aborted()

    def _raise_if_aborted(self) -> None:
        if self.aborted:  # before there was a socket to end
            raise TimeoutError("the time is over")

    def abort(self) -> None:
        """End the exchange from another thread."""
        self.aborted = True
        try:
            if self.sock is not None:
                self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended already


def _target(url: str) -> tuple[SplitResult, str, int]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UnreachableError(f"the webhook's URL cannot be read: {error}") from error
    if not parts.hostname:
        raise UnreachableError("the webhook's URL has no host")
    return parts, parts.hostname, port or (443 if parts.scheme == "https" else 80)


def _authorization(parts: SplitResult) -> dict[str, str]:
    if parts.username is None:
        return {}
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return {"Authorization": "Basic " + b64encode(login).decode()}
