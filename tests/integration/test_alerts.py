"""Alerts on a real Postgres, and their webhooks to a real receiver."""

import asyncio
import hmac
import json
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from aggregator.alerts import deliveries
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


async def test_one_webhook_at_the_start_and_one_at_the_end(
    report, judge, deliver, forget, receiver, rows
):
    await report(0.2)
    assert judge() == Evaluation(0, 0)
    forget()
    await report(2.5)
    assert judge() == Evaluation(1, 0)
    assert [judge() for _ in range(3)] == [Evaluation()] * 3
    assert await deliver() == Sent(delivered=1)
    assert await deliver() == Sent()
    forget()
    await report(0.2)
    assert judge() == Evaluation(0, 1)
    assert [judge() for _ in range(3)] == [Evaluation()] * 3
    assert await deliver() == Sent(delivered=1)
    assert await deliver() == Sent()

    assert receiver.events() == ["firing", "resolved"]
    receiver.check_signatures()
    start, end = (json.loads(body) for _, body in receiver.requests)
    assert start["alerts"][0]["labels"]["host"] == "web-1"
    assert "2.5% of the host of CPU, over the limit of 1%" in start["commonAnnotations"]["summary"]
    assert start["alerts"][0]["fingerprint"] == end["alerts"][0]["fingerprint"]
    assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == 2
    [(state, value, threshold, detail)] = rows("SELECT state, value, threshold, detail FROM alerts")
    assert (state, value, threshold) == ("resolved", 2.5, 1)
    assert detail["start"]["cpu_percent"] == 2.5
    assert detail["end"]["cpu_percent"] == pytest.approx(0.2, abs=0.001)


async def test_memory_alone_is_enough(report, judge, rows):
    await report(0.1, memory_mib=51)
    assert judge() == Evaluation(1, 0)
    assert rows("SELECT value, threshold, detail ->> 'quantity' FROM alerts") == [
        (51 * MIB, 50 * MIB, "memory_bytes")
    ]


async def test_only_the_last_minute_counts_and_one_report_is_too_few(report, judge):
    await report(9, batches=1)
    assert judge() == Evaluation()
    await report(9, batches=6, late_s=70)
    assert judge() == Evaluation()


async def test_long_batches_widen_the_window(report, judge):
    await report(9, batches=2, length_s=120)
    assert judge() == Evaluation(1, 0)


async def test_a_node_with_a_wrong_clock_is_judged_too(report, judge, rows):
    await report(9, late_s=90)
    rows("UPDATE nodes SET clock_offset_ms = 90000")
    assert judge() == Evaluation(1, 0)


async def test_each_node_has_its_own_alert(report, judge, new_node, rows):
    for name, cpu_percent in (("a", 5), ("b", 0.1), ("c", 6)):
        await report(cpu_percent, by=new_node(name))
    assert judge() == Evaluation(2, 0)
    firing = rows("SELECT n.name FROM alerts a JOIN nodes n ON n.id = a.node_id ORDER BY 1")
    assert firing == [("a",), ("c",)]


async def test_a_node_that_falls_silent_keeps_its_alert_and_is_called_stale(
    report, judge, forget, rows
):
    await report(5)
    judge()
    forget()
    assert judge() == Evaluation()
    assert rows("SELECT state, detail -> 'stale' FROM alerts") == [("firing", True)]
    await report(5)
    assert judge() == Evaluation()
    assert rows("SELECT state, detail -> 'stale' FROM alerts") == [("firing", False)]


async def test_many_workers_at_once_start_and_end_once(report, judge, forget, rows):
    await report(5)
    with ThreadPoolExecutor(6) as pool:
        assert sum(done.started for done in pool.map(lambda _: judge(), range(6))) == 1
    forget()
    await report(0.1)
    with ThreadPoolExecutor(6) as pool:
        assert sum(done.ended for done in pool.map(lambda _: judge(), range(6))) == 1
    assert rows("SELECT event, count(*) FROM deliveries GROUP BY 1 ORDER BY 1") == [
        ("firing", 1),
        ("resolved", 1),
    ]


async def test_many_workers_at_once_send_a_message_once(report, judge, deliver, receiver):
    await report(5)
    judge()
    sent = await asyncio.gather(*(deliver() for _ in range(4)))
    assert sum(each.delivered for each in sent) == 1
    assert receiver.events() == ["firing"]


async def test_a_failing_receiver_gets_the_same_message_again_and_the_end_after_it(
    report, judge, deliver, forget, receiver, rows
):
    receiver.statuses = [500, 503]
    await report(5)
    judge()
    assert await deliver() == Sent(failed=1)
    assert await deliver() == Sent()  # not before its time
    [(attempts, error, wait_s)] = rows(
        "SELECT attempts, last_error, extract(epoch FROM next_attempt_at - now()) FROM deliveries"
    )
    assert (attempts, 0 < wait_s <= 15) == (1, True)
    assert "answered 500" in error
    forget()
    await report(0.1)
    assert judge() == Evaluation(0, 1)
    assert await deliver() == Sent()  # the end waits for the start
    due = "UPDATE deliveries SET next_attempt_at = now() WHERE delivered_at IS NULL"
    rows(due)
    assert await deliver() == Sent(failed=1)
    rows(due)
    assert await deliver() == Sent(delivered=2)

    assert receiver.events() == ["firing"] * 3 + ["resolved"]
    receiver.check_signatures()
    starts = receiver.requests[:3]
    assert len({headers["webhook-id"] for headers, _ in starts}) == 1
    assert len({body for _, body in starts}) == 1
    assert rows("SELECT last_error, next_attempt_at FROM deliveries") == [(None, None)] * 2


async def test_a_day_of_failures_is_given_up_and_said(report, judge, deliver, receiver, rows):
    receiver.statuses = [500]
    await report(5)
    judge()
    rows("UPDATE alerts SET started_at = now() - interval '23 hours 59 minutes 50 seconds'")
    assert await deliver() == Sent(given_up=1)
    rows("UPDATE alerts SET started_at = now()")
    assert await deliver() == Sent()
    [(error, next_attempt)] = rows("SELECT last_error, next_attempt_at FROM deliveries")
    assert error.startswith("given up after 1 attempts: 127.0.0.1:")
    assert next_attempt is None


async def test_a_worker_that_dies_while_sending_loses_nothing(
    report, judge, deliver, database, receiver, rows
):
    await report(5)
    judge()
    with session_scope(database) as session:
        claim = deliveries.claim_due(session)
    assert claim is not None  # and now its worker is gone
    assert await deliver() == Sent()
    rows("UPDATE deliveries SET next_attempt_at = next_attempt_at - interval '2 minutes'")
    assert await deliver() == Sent(delivered=1)
    assert receiver.requests[0][0]["webhook-id"] == claim.webhook_id


async def test_private_receivers_are_refused_unless_allowed(report, judge, deliver, receiver, rows):
    await report(5)
    judge()
    assert await deliver(Webhook(receiver.url, SECRET)) == Sent(failed=1)
    assert receiver.requests == []
    assert "only private addresses" in rows("SELECT last_error FROM deliveries")[0][0]


async def test_a_webhook_that_is_not_configured_any_more_is_given_up(
    report, judge, deliver, forget, rows
):
    await report(5)
    judge()
    assert await deliver(Webhook("http://other.invalid/")) == Sent(given_up=1)
    forget()
    await report(0.1)
    judge("http://other.invalid/")  # heard of no start, so hears of no end
    assert rows("SELECT event FROM deliveries") == [("firing",)]


async def test_the_api_lists_alerts_with_their_deliveries(
    report, judge, deliver, forget, receiver, client, new_node
):
    await report(5)
    judge(receiver.url + "/secret-path")
    await deliver(Webhook(receiver.url + "/secret-path", SECRET, True))
    forget()
    await report(0.1)
    judge(receiver.url + "/secret-path")
    await report(7, by=new_node("web-2"))
    judge(receiver.url + "/secret-path")
    async with client.get("/api/v1/alerts") as response:
        assert response.status == 200
        text = await response.text()
    assert "secret-path" not in text
    firing, resolved = json.loads(text)["alerts"]
    assert (firing["host"], firing["state"], firing["ended_at"]) == ("web-2", "firing", None)
    assert (resolved["host"], resolved["state"]) == ("web-1", "resolved")
    assert resolved["ended_at"].endswith("Z")
    sent = [(each["event"], each["state"], each["attempts"]) for each in resolved["deliveries"]]
    assert sent == [("firing", "delivered", 1), ("resolved", "pending", 0)]
    assert resolved["deliveries"][0]["to"] == receiver.url.removesuffix("/hook")


async def test_a_cloned_node_is_told_once_and_once_that_it_is_over(
    node, stack_of, judge_all, deliver, receiver, rows
):
    await node.send(node.batch({stack_of(1): 1}))
    assert judge_all() == 0

    async def send_as_a_clone():
        clone = node.batch({stack_of(2): 9}, sequence=node.sequence)
        async with await node.post("/api/v1/batches", clone) as response:
            assert response.status == 409

    def ten_minutes_later():
        rows("UPDATE nodes SET clone_refused_at = clone_refused_at - interval '10 minutes'")

    await send_as_a_clone()
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda _: judge_all(), range(4))) == 1
    assert await deliver() == Sent(delivered=1)
    ten_minutes_later()
    await send_as_a_clone()  # it goes on, and so does the alert
    await node.send(node.batch({stack_of(1): 1}))
    assert judge_all() == 0
    ten_minutes_later()
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda _: judge_all(), range(4))) == 1
    assert await deliver() == Sent(delivered=1)
    assert (judge_all(), await deliver()) == (0, Sent())

    assert receiver.events() == ["firing", "resolved"]
    receiver.check_signatures()
    assert rows("SELECT rule, state FROM alerts") == [("cloned_node", "resolved")]
    assert rows("SELECT sum(samples)::int FROM node_prof") == [(2,)]
    start = json.loads(receiver.requests[0][1])
    assert "two hosts send as web-1" in start["commonAnnotations"]["summary"]


async def test_a_wrong_clock_is_told_until_it_is_right(
    node, stack_of, judge_all, deliver, receiver, rows
):
    async def send(ahead_s: float, start_ns: int | None = None) -> int:
        changes = {} if start_ns is None else {"start_ns": start_ns}
        headers = {"Date": formatdate(time.time() + ahead_s, usegmt=True)}
        batch = node.batch({stack_of(1): 1}, **changes)
        async with await node.post("/api/v1/batches", batch, **headers) as response:
            return response.status

    assert (await send(0), judge_all()) == (200, 0)
    assert (await send(-3600), judge_all()) == (200, 1)
    assert (await send(-3600), judge_all()) == (200, 0)
    rows("UPDATE nodes SET clock_offset_ms = 7000")
    assert judge_all() == 0
    rows("UPDATE nodes SET clock_offset_ms = -4000")
    assert judge_all() == 1
    assert await deliver() == Sent(delivered=2)
    assert sorted(receiver.events()) == ["firing", "resolved"]
    # So wrong that no batch of the node is taken: its clock is known all the same.
    ahead_ns = time.time_ns() + 3600 * SECOND_NS
    assert (await send(3600, ahead_ns), judge_all()) == (422, 1)
    [(state, value, threshold)] = rows(
        "SELECT state, value, threshold FROM alerts WHERE rule = 'clock_offset' ORDER BY id DESC "
        "LIMIT 1"
    )
    assert (state, threshold) == ("firing", 10)
    assert -3610 < value < -3000
