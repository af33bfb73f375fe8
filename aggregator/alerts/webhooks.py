"""Sends one webhook message: one POST, to a checked address, without redirects, in bounded time."""

import http.client
import socket
import ssl
import threading
import time
from base64 import b64encode
from urllib.parse import SplitResult, unquote, urlsplit

from aggregator.alerts.addresses import checked_address
from aggregator.alerts.errors import DeliveryError
from aggregator.alerts.signature import signed_headers
from aggregator.config import Webhook

CONNECT_TIMEOUT_S = 5.0
TOTAL_TIMEOUT_S = 15.0
USER_AGENT = "flamefleet"


def send_webhook(webhook: Webhook, webhook_id: str, body: bytes) -> int:
    """POST `body`; the 2xx status of the answer.

    Raises DeliveryError for everything else: the same message, with the same id, may be sent again.
    """
    parts, host, port = _target(webhook.url)
    address = checked_address(host, port, webhook.allow_private)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
        **_authorization(parts),
        **signed_headers(webhook.secret, webhook_id, int(time.time()), body),
    }
    connection = _Connection(host, port, address, tls=parts.scheme == "https")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    # A socket's timeout starts anew with every byte; a receiver that drips must not hold us.
    guard = threading.Timer(TOTAL_TIMEOUT_S, connection.abort)
    guard.daemon = True
    guard.start()
    try:
        connection.request("POST", path, body, headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = f"no answer within {TOTAL_TIMEOUT_S:.0f} s" if connection.aborted else repr(error)
        raise DeliveryError(f"{parts.netloc.rpartition('@')[2]}: {reason}") from error
    finally:
        guard.cancel()
        connection.close()
    if not 200 <= status < 300:
        also = "; redirects are not followed" if 300 <= status < 400 else ""
        raise DeliveryError(f"{parts.netloc.rpartition('@')[2]} answered {status}{also}")
    return status


class _Connection(http.client.HTTPConnection):
    """A connection to `address`, which speaks to it (and checks its certificate) as `host`."""

    def __init__(self, host: str, port: int, address: str, tls: bool) -> None:
        super().__init__(host, port, timeout=TOTAL_TIMEOUT_S)
        self._address = address
        self._tls = ssl.create_default_context() if tls else None
        if tls:
            self.default_port = 443  # leaves ":443" out of the Host header
        self.aborted = False

    def connect(self) -> None:
        self.sock = socket.create_connection((self._address, self.port), CONNECT_TIMEOUT_S)
        self.sock.settimeout(TOTAL_TIMEOUT_S)
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self.host)

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
        raise DeliveryError(f"the webhook's URL cannot be read: {error}") from error
    if not parts.hostname:
        raise DeliveryError("the webhook's URL has no host")
    return parts, parts.hostname, port or (443 if parts.scheme == "https" else 80)


def _authorization(parts: SplitResult) -> dict[str, str]:
    if parts.username is None:
        return {}
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return {"Authorization": "Basic " + b64encode(login).decode()}
