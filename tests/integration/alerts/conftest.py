"""A real receiver of webhooks, and what makes and judges alerts on a real Postgres."""

import asyncio
import hmac
import json
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from aggregator.alerts.changes import Evaluation
from aggregator.alerts.deliveries import Sent, deliver_due
from aggregator.alerts.rules import OverheadRule
from aggregator.alerts.service import evaluate_overhead
from aggregator.alerts.tasks import evaluate
from aggregator.config import CentreConfig, Webhook
from aggregator.db import session_scope
from wire.schema import Overhead

MIB = 1 << 20
SECOND_NS = 10**9
KEY = b"an alert key of the tests"
SECRET = "whsec_" + b64encode(KEY).decode()
RULE = OverheadRule()


class Receiver:
    """An HTTP server that keeps what it got; `statuses` are answered first, then 200."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.requests.append((headers, body))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"

    def events(self) -> list[str]:
        return [json.loads(body)["status"] for _, body in self.requests]

    def check_signatures(self) -> None:
        for headers, body in self.requests:
            content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
            digest = hmac.digest(KEY, content, "sha256")
            version, _, signature = headers["webhook-signature"].partition(",")
            assert (version, b64decode(signature)) == ("v1", digest)
            assert abs(time.time() - int(headers["webhook-timestamp"])) < 300


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A running receiver."""
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.05,))
    thread.start()
    yield receiver
    receiver.server.shutdown()
    thread.join()
    receiver.server.server_close()


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return Webhook(receiver.url, SECRET, allow_private=True)


@pytest.fixture
def judge(database: Any, webhook: Webhook) -> Callable[..., Evaluation]:
    """Evaluates all nodes once."""

    def run(*urls: str) -> Evaluation:
        with session_scope(database) as session:
            return evaluate_overhead(session, RULE, urls or [webhook.url])

    return run


@pytest.fixture
def judge_all(database: Any, centre_config: CentreConfig, webhook: Webhook) -> Callable[[], int]:
    """Evaluates all rules once, as the worker does; how many alerts started or ended."""
    return lambda: evaluate(database, replace(centre_config, webhooks=(webhook,)))


@pytest.fixture
def deliver(database: Any, webhook: Webhook) -> Callable[..., Awaitable[Sent]]:
    """Sends what is due, once, beside the aggregator's loop."""
    return lambda *webhooks: asyncio.to_thread(deliver_due, database, webhooks or [webhook])


@pytest.fixture
def forget(rows: Any) -> Callable[[], None]:
    """Removes the overhead that was reported, as if its minute had gone by."""
    return lambda: rows("DELETE FROM node_overhead")


@pytest.fixture
def report(node: Any) -> Callable[..., Any]:
    """Sends batches, the last of which has just ended, with the given overhead."""

    async def send(
        cpu_percent: float,
        memory_mib: float = 30,
        batches: int = 6,
        by: Any = None,
        length_s: int = 10,
        late_s: int = 0,
    ) -> None:
        sender = by or node
        cost = Overhead(1, 1, 1, 1, int(memory_mib * MIB), 12 * MIB, cpu_percent, cpu_percent)
        now_ns = time.time_ns() - late_s * SECOND_NS
        for number in range(batches, 0, -1):
            batch = sender.batch(
                {},
                start_ns=now_ns - number * length_s * SECOND_NS,
                duration_ns=length_s * SECOND_NS,
                overhead=cost,
            )
            await sender.send(batch)

    return send
