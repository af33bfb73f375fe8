"""Sending to a real receiver, which answers well, badly, slowly or not at all."""

import hmac
import shutil
import socket
import ssl
import subprocess
import threading
import time
from base64 import b64decode, b64encode
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from aggregator.alerts import webhooks
from aggregator.alerts.errors import DeliveryError, RefusedAddressError, UnreachableError
from aggregator.alerts.webhooks import send_webhook
from aggregator.config import Webhook

SECRET = "whsec_" + b64encode(b"0123456789abcdef").decode()


def status(code: int, **headers: str) -> Any:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)

    return answer


def test_a_message_arrives_whole_and_signed(receiver: Any) -> None:
    before = int(time.time())
    assert (
        send_webhook(Webhook(receiver.url + "/a/b?c=d", SECRET, True), "msg_7", b'{"a":1}') == 200
    )
    ((path, headers, body),) = receiver.requests
    assert (path, body) == ("/a/b?c=d", b'{"a":1}')
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == "msg_7"
    assert before <= int(headers["webhook-timestamp"]) <= time.time()
    content = f"msg_7.{headers['webhook-timestamp']}.".encode() + body
    digest = hmac.digest(b"0123456789abcdef", content, "sha256")
    version, _, signature = headers["webhook-signature"].partition(",")
    assert (version, b64decode(signature)) == ("v1", digest)


@pytest.mark.parametrize("code", [201, 202, 204])
def test_every_2xx_is_delivered(receiver: Any, code: int) -> None:
    receiver.answer = status(code)
    assert send_webhook(Webhook(receiver.url, "", True), "msg_1", b"{}") == code


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_redirects_are_not_followed(receiver: Any, code: int) -> None:
    receiver.answer = status(code, Location=receiver.url + "/elsewhere")
    with pytest.raises(DeliveryError, match=f"answered {code}; redirects are not followed"):
        send_webhook(Webhook(receiver.url, SECRET, True), "msg_1", b"{}")
    assert [path for path, _, _ in receiver.requests] == ["/"]


@pytest.mark.parametrize("code", [400, 404, 410, 429, 500, 503])
def test_other_answers_are_failures(receiver: Any, code: int) -> None:
    receiver.answer = status(code)
    with pytest.raises(DeliveryError, match=f"answered {code}"):
        send_webhook(Webhook(receiver.url, SECRET, True), "msg_1", b"{}")


def test_private_addresses_are_refused_before_anything_is_sent(receiver: Any) -> None:
    with pytest.raises(RefusedAddressError):
        send_webhook(Webhook(receiver.url, SECRET), "msg_1", b"{}")
    assert receiver.requests == []


def test_a_login_in_the_url_is_sent_and_never_told(receiver: Any) -> None:
    receiver.answer = status(401)
    url = receiver.url.replace("//", "//ann:p%40ss@")
    with pytest.raises(DeliveryError) as caught:
        send_webhook(Webhook(url, "", True), "msg_1", b"{}")
    assert "ann" not in caught.value.message
    expected = "Basic " + b64encode(b"ann:p@ss").decode()
    assert receiver.requests[0][1]["authorization"] == expected


def test_a_closed_port_is_a_failure() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(DeliveryError, match="refused"):
            send_webhook(Webhook(url, "", True), "msg_1", b"{}")


def test_a_receiver_that_drips_is_left(receiver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "TOTAL_TIMEOUT_S", 0.6)
    left = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        try:
            while not left.wait(0.1):
                handler.wfile.write(b"H")
        except OSError:
            left.set()

    receiver.answer = drip
    with pytest.raises(DeliveryError, match="no answer within"):
        send_webhook(Webhook(receiver.url, "", True), "msg_1", b"{}")
    assert left.wait(300)


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> Any:
    """addresses(*found): what every name resolves to; no look-up can give a dead one before."""

    def resolve(*found: str) -> None:
        monkeypatch.setattr(webhooks, "checked_addresses", lambda *_: list(found))

    return resolve


@pytest.mark.parametrize("dead", [("::1",), ("127.0.0.2", "127.0.0.3", "::1")])
def test_every_address_is_tried_until_one_takes_the_connection(
    receiver: Any, addresses: Any, dead: tuple[str, ...]
) -> None:
    addresses(*dead, "127.0.0.1")
    url = receiver.url.replace("127.0.0.1", "localhost")
    assert send_webhook(Webhook(url, "", True), "msg_1", b"{}") == 200
    assert len(receiver.requests) == 1


def test_all_dead_addresses_are_named(addresses: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening
        addresses("127.0.0.1", "127.0.0.2")
        url = f"http://localhost:{taken.getsockname()[1]}"
        with pytest.raises(UnreachableError, match=r"127\.0\.0\.1: .*127\.0\.0\.2: "):
            send_webhook(Webhook(url, "", True), "msg_1", b"{}")


def test_an_address_that_takes_the_connection_and_hangs_is_not_the_first_each_time(
    receiver: Any, addresses: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "TOTAL_TIMEOUT_S", 0.6)
    port = receiver.server.server_port
    with socket.create_server(("127.0.0.2", port)):
        addresses("127.0.0.2", "127.0.0.1")
        webhook = Webhook(f"http://localhost:{port}", "", True)
        with pytest.raises(UnreachableError, match="no answer within"):
            send_webhook(webhook, "msg_1", b"{}", 1)
        monkeypatch.undo()
        addresses("127.0.0.2", "127.0.0.1")
        assert send_webhook(webhook, "msg_1", b"{}", 2) == 200


def test_a_handshake_that_never_ends_is_left(addresses: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(webhooks, "TOTAL_TIMEOUT_S", 0.6)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"https://localhost:{server.getsockname()[1]}"
        addresses("127.0.0.1")
        with pytest.raises(UnreachableError):
            send_webhook(Webhook(url, "", True), "msg_1", b"{}")


@pytest.mark.parametrize("tls", [False, True])
def test_a_time_that_is_over_before_there_is_a_connection_ends_it(tls: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port, deadline_s = server.getsockname()[1], time.monotonic() + 300
        connection = webhooks._Connection("localhost", port, ["127.0.0.1"], tls, deadline_s)
        connection.abort()
        with pytest.raises(TimeoutError, match="the time is over"):
            connection.connect()
        connection.close()


def test_an_endless_answer_is_left(receiver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "TOTAL_TIMEOUT_S", 2.0)

    def flood(handler: BaseHTTPRequestHandler) -> None:
        with suppress(OSError):
            while True:
                handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    receiver.answer = flood
    with pytest.raises(UnreachableError):
        send_webhook(Webhook(receiver.url, "", True), "msg_1", b"{}")


@pytest.mark.parametrize(
    "url", ["http://", "http:///path", "http://127.0.0.1:99999/", "http://[::1", "http://a b/"]
)
def test_unusable_urls_are_failures_too(url: str) -> None:
    with pytest.raises(DeliveryError):
        send_webhook(Webhook(url, "", True), "msg_1", b"{}")


def test_certificates_are_checked_against_the_name(
    receiver: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    argv += ["-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "2"]
    argv += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(argv, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    receiver.server.socket = context.wrap_socket(receiver.server.socket, server_side=True)
    port = receiver.server.server_port
    with pytest.raises(DeliveryError, match="CERTIFICATE_VERIFY_FAILED"):
        send_webhook(Webhook(f"https://localhost:{port}", "", True), "msg_1", b"{}")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with pytest.raises(DeliveryError, match="IP address mismatch"):
        send_webhook(Webhook(f"https://127.0.0.1:{port}", "", True), "msg_1", b"{}")
    assert send_webhook(Webhook(f"https://localhost:{port}", "", True), "msg_1", b"{}") == 200
    assert receiver.requests[0][1]["host"] == f"localhost:{port}"
