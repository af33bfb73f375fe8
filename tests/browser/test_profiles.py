"""An operator asks a host for a profile on demand, on the page."""

import os
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import pytest
from selenium.webdriver.common.by import By
from sqlalchemy import text

from aggregator.access.operators import create_operator_token
from aggregator.access.service import create_token
from aggregator.db import create_sync_database, session_scope
from wire.codec import decode, encode
from wire.schema import Answer, Batch, Event, Overhead, ProfileDirective, Series

SECOND_NS = 10**9
Send = Callable[..., list[ProfileDirective]]


@pytest.fixture
def operator_token(postgres_url: str, aggregator_url: str) -> str:
    """A token of the operator ann; the running aggregator has made the tables."""
    engine = create_sync_database(postgres_url)
    with session_scope(engine) as session:
        token = create_operator_token(session, "ann")
    engine.dispose()
    return token


@pytest.fixture
def send(postgres_url: str, aggregator_url: str) -> Send:
    """send(facts, *events): a batch of the host web-1; what it is told about profiles."""
    engine = create_sync_database(postgres_url)
    with session_scope(engine) as session:
        token = create_token(session, "web-1")
    run, sequence = os.urandom(16), 0

    def put(facts: dict[str, str], *events: Event) -> list[ProfileDirective]:
        nonlocal sequence
        sequence += 1
        batch = Batch(
            node="web-1",
            run=run,
            sequence=sequence,
            start_ns=time.time_ns() - 20 * SECOND_NS,
            duration_ns=10 * SECOND_NS,
            rate_millihertz=19_000,
            collector="cpu",
            online_cpus=4,
            series=[Series({"service": "shop"})],
            stack_hashes=b"s" * 16,
            series_index=bytes(4),
            counts=(100).to_bytes(4, "little"),
            lost={},
            overhead=Overhead(0, 0, 0, 0, 0, 0, 0.0, 0.0),
            agent_version="0.1.0",
            facts=facts,
            events=list(events),
        )
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{aggregator_url}api/v1/batches"
        with urlopen(Request(url, encode(batch), headers)) as answer:
            told = decode(answer.read(), Answer).directives
        with engine.begin() as connection:  # however long the test takes, the host is not late
            connection.execute(text("UPDATE nodes SET last_seen_at = now() + interval '1 hour'"))
        return [directive for directive in told if isinstance(directive, ProfileDirective)]

    yield put
    engine.dispose()


def listed(page: Any) -> str:
    """The words of the listed profiles."""
    return str(page.text(".host-profiles ol"))


def test_an_operator_profiles_a_host(
    page_at: Callable[[str], Any], aggregator_url: str, send: Send, operator_token: str
) -> None:
    facts = {"on_demand_max_rate_hz": "99", "on_demand_collectors": "cpu"}
    send(facts)
    page = page_at(aggregator_url).open()
    page.find("#health").click()
    page.find(".disclose").click()
    page.wait(lambda: page.find(".host-profiles form").is_displayed())
    rate, seconds = page.driver.find_elements(By.CSS_SELECTOR, ".host-profiles input[type=number]")
    assert [rate.get_attribute("value"), rate.get_attribute("max")] == ["99", "99"]
    assert seconds.get_attribute("value") == "60"

    # A token that is no operator's: refused in words, and nothing is asked.
    field = page.find(".host-profiles input[type=password]")
    field.send_keys("wrong")
    page.find(".host-profiles form button").click()
    page.wait(lambda: "the token is no operator's" in page.text(".host-profiles .problem"))
    assert "flamefleet token create --operator" in page.text(".host-profiles .problem")
    assert send(facts) == []

    field.clear()
    field.send_keys(operator_token)
    page.find(".host-profiles form button").click()
    page.wait(lambda: "waiting 1 min · 99 Hz · by ann" in listed(page))
    assert page.text(".host-profiles .problem") == ""

    # The host is told, and says that it has begun: the page follows.
    (directive,) = send(facts)
    assert (directive.rate_hz, directive.seconds) == (99, 60)
    begun = Event(time.time_ns(), "profile", "begun", f"profile {directive.id}: began", 99.0)
    send(facts, begun)
    page.wait(lambda: "running" in listed(page) and "of 1 min left" in listed(page))
    shown = page.find(".host-profiles ol a").get_attribute("href")
    view = parse_qs(urlsplit(shown).query)
    assert view["query"] == ['{host="web-1"}']
    assert view["from"] < view["until"]

    page.script("document.querySelector('.host-profiles ol button').click()")
    page.wait(lambda: "cancelled by ann" in listed(page))
    # What came with the token is nowhere but in its field.
    assert page.script("return localStorage.length + sessionStorage.length") == 0
    assert operator_token not in page.script("return location.href + document.cookie")
    assert all("401" in line for line in page.console())


def test_a_host_that_takes_none_has_no_form(
    page_at: Callable[[str], Any], aggregator_url: str, send: Send
) -> None:
    send({"on_demand_max_rate_hz": "0", "on_demand_collectors": "cpu"})
    page = page_at(aggregator_url).open()
    page.find("#health").click()
    page.find(".disclose").click()
    page.wait(lambda: "takes no profiles on demand" in page.find(".host-profiles").text)
    assert not page.find(".host-profiles form").is_displayed()
    assert page.console() == []
