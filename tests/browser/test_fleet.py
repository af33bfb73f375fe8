"""What profiling costs on each host, beside its budget, and what its agent did about it."""

import os
import time
from collections.abc import Callable
from typing import Any
from urllib.request import Request, urlopen

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from sqlalchemy import text

from aggregator.access.service import create_token
from aggregator.db import create_sync_database, session_scope
from wire.codec import encode
from wire.schema import Batch, Event, Overhead, Series

MIB = 1 << 20
SECOND_NS = 10**9
CALM = {
    "kernel": "6.1.0-37-amd64",
    "preset": "production",
    "asked_hz": "19",
    "effective_hz": "18.9",
    "budget_percent": "0.5",
    "budget_user_percent": "2",
}
Send = Callable[..., None]


def shed_facts() -> dict[str, str]:
    """The facts of a host that lowered its rate two days ago."""
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 2 * 86_400))
    shed = {"asked_hz": "99", "shed": "rate (19 of 99 Hz), Python frames", "shed_since": since}
    return {**CALM, **shed}


def cost(percent: float, cpus: int = 4) -> Overhead:
    """An overhead of `percent` of a host with `cpus` in 10 s: a half in user space."""
    whole_ns = round(percent / 100 * cpus * 10 * SECOND_NS)
    parts_ns = (whole_ns * 4 // 10, whole_ns // 10, whole_ns * 3 // 10, whole_ns * 2 // 10)
    of_core = percent * cpus / 2
    return Overhead(*parts_ns, 31 * MIB, 11 * MIB, percent, of_core, 17.25, 12_400, 800, 9 * MIB)


@pytest.fixture
def send(postgres_url: str, aggregator_url: str) -> Send:
    """send(name, facts, overhead, events, lost): a batch of 10 s of a host, of just now."""
    engine = create_sync_database(postgres_url)
    tokens: dict[str, str] = {}

    def send_batch(
        name: str,
        facts: dict[str, str],
        overhead: Overhead,
        events: list[Event] | None = None,
        lost: dict[str, int] | None = None,
    ) -> None:
        if name not in tokens:
            with session_scope(engine) as session:
                tokens[name] = create_token(session, name)
        batch = Batch(
            node=name,
            run=os.urandom(16),
            sequence=1,
            start_ns=time.time_ns() - 20 * SECOND_NS,
            duration_ns=10 * SECOND_NS,
            rate_millihertz=19_000,
            collector="cpu",
            online_cpus=4,
            series=[Series({"service": "shop"})],
            stack_hashes=b"s" * 16,
            series_index=bytes(4),
            counts=(100).to_bytes(4, "little"),
            lost=lost or {},
            overhead=overhead,
            agent_version="0.1.0",
            facts=facts,
            events=events or [],
        )
        headers = {"Authorization": f"Bearer {tokens[name]}"}
        url = f"{aggregator_url}api/v1/batches"
        with urlopen(Request(url, encode(batch), headers)) as answer:
            assert answer.status == 200
        with engine.begin() as connection:  # however long the test takes, the host is not late
            connection.execute(text("UPDATE nodes SET last_seen_at = now() + interval '1 hour'"))

    yield send_batch
    engine.dispose()


def steps(count: int) -> list[Event]:
    """Events of a governor, a second apart, the last one just now."""
    now_ns = time.time_ns()
    return [
        Event(now_ns - (count - i) * SECOND_NS, "governor", "cpu", f"step {i}")
        for i in range(count)
    ]


def rows_of(page: Any) -> list[list[str]]:
    """Name, state, rate and CPU of the listed hosts, top to bottom."""
    # In one go: the page goes on replacing the cells.
    rows: list[list[str]] = page.script(
        """return [...document.querySelectorAll("#hosts-table tr.host")].map((row) =>
          [...row.cells].slice(0, 4).map((cell) => cell.textContent.trim()));"""
    )
    return rows


def events_of(page: Any) -> list[str]:
    """The words of the events that are shown."""
    words: list[str] = page.script(
        """return [...document.querySelectorAll("tr.detail:not([hidden]) .events li > span")]
          .map((line) => line.innerText);"""
    )
    return words


def test_each_host_is_shown_beside_its_budget(
    page_at: Callable[[str], Any], aggregator_url: str, send: Send
) -> None:
    events = [*steps(22), Event(time.time_ns(), "unit_limit", "oom", "<b>killed</b>")]
    lost = {"paused": 540, "ring_full": 3}
    send("web-10", CALM, cost(0.13))
    send("web-9", shed_facts(), cost(0.47), events, lost)
    send("zeta", {**shed_facts(), "shed": "sampling (paused)"}, cost(0.61))
    send("an-old-agent", {"kernel": "5.10"}, cost(0.07))
    page = page_at(aggregator_url).open()
    page.find("#health").click()
    page.wait(lambda: page.find("#hosts").is_displayed())
    # Those that need somebody are on top, and a number beyond its budget says so in words too.
    assert rows_of(page) == [
        ["zeta", "Paused", "Paused", "0.61 % of 0.50 %, over its budget"],
        ["web-9", "Reduced", "19 of 99 Hz", "0.47 % of 0.50 %"],
        ["an-old-agent", "Reporting", "19 Hz", "0.07 %"],
        ["web-10", "Reporting", "19 Hz", "0.13 % of 0.50 %"],
    ]
    assert page.text("#hosts-answer") == "Profiling costs 0.32 % of 4 hosts = 0.051 of 16 cores"
    assert "2 hosts do less to stay inside their budget" in page.text("#hosts-reduced")

    # By the keyboard: from the first host's toggle one down, open it.
    toggles = page.driver.find_elements(By.CSS_SELECTOR, ".disclose")
    page.script("arguments[0].focus()", toggles[0])
    page.driver.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    page.wait(lambda: toggles[1].get_attribute("aria-expanded") == "true")
    assert page.find("tr.detail:not([hidden])").get_attribute("id") == toggles[1].get_attribute(
        "aria-controls"
    )
    told = " ".join(page.find("tr.detail:not([hidden]) dl").text.split())
    for words in (
        "Given up rate (19 of 99 Hz), Python frames since",
        "(2 d)",
        "CPU of host 0.47 % of 0.50 % User space 0.23 % BPF programs 0.14 % Interrupts 0.094 %",
        "User space 0.94 % of 2 % of one core",
        "Memory 31.0 MB of 50 MB Sampler 11.0 MB Shipper 9.0 MB BPF maps 11.0 MB",
        "17.3 µs One interrupt 12.4 µs ± 0.8, calibrated",
        "asked 99 Hz · allowed 19 Hz · effective 18.9 Hz",
        "540 paused · 3 ring full",
        "agent 0.1.0 · 6.1.0-37-amd64 · production",
    ):
        assert words in told, told

    # The newest events first, then the older ones; what a host says is never markup.
    page.wait(lambda: len(events_of(page)) == 20)
    newest = ["Unit limit <b>killed</b>", *(f"step {i}" for i in range(21, 2, -1))]
    assert events_of(page) == newest
    page.find("tr.detail:not([hidden]) .host-events button").click()
    page.wait(lambda: len(events_of(page)) == 23)
    assert events_of(page) == [*newest, "step 2", "step 1", "step 0"]
    page.wait(lambda: not page.find("tr.detail:not([hidden]) .host-events button").is_displayed())

    # Something new comes by itself; focus and opened rows stay.
    page.script("arguments[0].focus()", toggles[1])
    send("web-9", CALM, cost(0.2), [Event(time.time_ns(), "governor", "room", "back to 99 Hz")])
    page.wait(lambda: "back to 99 Hz" in events_of(page))
    page.wait(lambda: rows_of(page)[0][0] == "zeta" and rows_of(page)[3][0] == "web-10")
    page.wait(lambda: page.driver.switch_to.active_element == toggles[1])
    assert page.console() == []


def test_a_host_without_events_and_a_server_that_is_gone(
    page_at: Callable[[str], Any], aggregator_url: str, send: Send, chromium: webdriver.Chrome
) -> None:
    send("web-1", CALM, cost(0.13))
    chromium.execute_cdp_cmd("Network.enable", {})
    page = page_at(aggregator_url).open()
    chromium.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True},
    )
    page.find("#health").click()
    page.find(".disclose").click()
    page.wait(lambda: "No events in the last 7 days" in page.text(".host-events"))
    assert "Given upnothing" in page.text("tr.detail dl")
    # On a phone nothing is cut off at the side.
    sizes = "const d = document.querySelector(arguments[0]); return [d.scrollWidth, d.clientWidth]"
    for selector in ("html", "#hosts", "#hosts .table-wrap"):
        wide, seen = page.script(sizes, selector)
        assert wide <= seen, selector

    conditions = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    command = "Network.emulateNetworkConditions"
    chromium.execute_cdp_cmd(command, {"offline": True, **conditions})
    try:
        page.find(".disclose").click()
        page.find(".disclose").click()
        page.wait(lambda: "The server can't be reached" in page.text(".host-events"))
        page.wait(lambda: "These figures may be old" in page.text("#hosts-problem"))
        assert rows_of(page)[0][0] == "web-1"
    finally:
        chromium.execute_cdp_cmd(command, {"offline": False, **conditions})
    # By its own click: the page asks every few seconds, too, and needs no link then.
    page.script("document.querySelector('.host-events .link')?.click()")
    page.wait(lambda: "No events in the last 7 days" in page.text(".host-events"))
    page.wait(lambda: page.text("#hosts-problem") == "")
    told = ("ERR_INTERNET_DISCONNECTED", "can't be reached")
    assert all(any(words in line for words in told) for line in page.console())
