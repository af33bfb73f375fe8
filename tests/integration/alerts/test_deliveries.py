"""Webhooks of alerts to a real receiver, and the list of both."""

import asyncio
import json
import socket
from dataclasses import replace

import pytest

from aggregator.alerts import webhooks
from aggregator.alerts.changes import Evaluation
from aggregator.alerts.claims import claim_due
from aggregator.alerts.deliveries import Sent
from aggregator.config import Webhook
from aggregator.db import session_scope


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
        claim = claim_due(session, receiver.url)
    assert claim is not None  # and now its worker is gone
    assert await deliver() == Sent()
    rows("UPDATE deliveries SET claimed_until = claimed_until - interval '2 minutes'")
    assert await deliver() == Sent(delivered=1)
    assert receiver.requests[0][0]["webhook-id"] == claim.webhook_id


async def test_private_receivers_are_refused_unless_allowed(
    report, judge, deliver, webhook, receiver, rows
):
    await report(5)
    judge()
    assert await deliver(replace(webhook, allow_private=False)) == Sent(failed=1)
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
    report, judge, deliver, forget, receiver, webhook, client, new_node
):
    await report(5)
    judge(receiver.url + "/secret-path")
    await deliver(replace(webhook, url=receiver.url + "/secret-path"))
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


@pytest.fixture
def silent():
    """A listening socket that never answers: connections of its queue hang."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Webhook(f"http://127.0.0.1:{server.getsockname()[1]}/", "", allow_private=True)


async def test_a_receiver_that_hangs_rests_and_delays_no_other(
    report, judge, deliver, receiver, webhook, silent, new_node, rows, monkeypatch
):
    monkeypatch.setattr(webhooks, "TOTAL_TIMEOUT_S", 2.0)
    for number in range(12):
        await report(5, by=new_node(f"web-{number + 2}"))
    assert judge(silent.url, webhook.url) == Evaluation(12, 0)
    # Of twelve messages to the silent one a single one is tried: the others would fare the same.
    assert await deliver(webhook, silent) == Sent(delivered=12, failed=1)
    assert receiver.events() == ["firing"] * 12
    assert await deliver(webhook, silent) == Sent()
    tried = "SELECT sum(attempts)::int FROM deliveries WHERE url = :url"
    assert rows(tried, url=silent.url) == [(1,)]

    # WHEN its rest is over THEN the next is tried, and it rests twice as long
    rows("UPDATE deliveries SET unreachable_until = now(), next_attempt_at = now()")
    assert await deliver(webhook, silent) == Sent(failed=1)
    [(rest_s,)] = rows("SELECT max(extract(epoch FROM unreachable_until - now())) FROM deliveries")
    assert 15 < rest_s <= 30

    # WHEN it is there again THEN all are delivered
    rows("UPDATE deliveries SET unreachable_until = now()")
    moved = "UPDATE deliveries SET url = :url, next_attempt_at = now() WHERE url = :silent"
    rows(moved, url=receiver.url + "?back", silent=silent.url)
    back = replace(webhook, url=receiver.url + "?back")
    assert await deliver(webhook, back) == Sent(delivered=12)


async def test_what_waited_a_day_for_a_silent_receiver_is_given_up_untried(
    report, judge, deliver, silent, new_node, rows, monkeypatch
):
    monkeypatch.setattr(webhooks, "TOTAL_TIMEOUT_S", 0.5)
    await report(5)
    await report(5, by=new_node("web-2"))
    assert judge(silent.url) == Evaluation(2, 0)
    rows("UPDATE alerts SET started_at = now() - interval '25 hours'")
    assert await deliver(silent) == Sent(given_up=1)
    assert await deliver(silent) == Sent()
    assert rows("SELECT count(*)::int FROM deliveries WHERE next_attempt_at IS NULL") == [(2,)]


async def test_one_message_that_is_refused_holds_up_no_other(
    report, judge, deliver, receiver, new_node
):
    receiver.statuses = [400]
    await report(5)
    await report(5, by=new_node("web-2"))
    judge()
    assert await deliver() == Sent(delivered=1, failed=1)
