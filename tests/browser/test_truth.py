"""The page tells the truth: clicks mean exactly that thing, what is not drawn is said and can be
reached, a dead agent, a gap and a server that hangs look like what they are."""

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from sqlalchemy import text

from aggregator.access.service import create_token
from aggregator.db import create_sync_database, session_scope
from wire.codec import decode, encode
from wire.hashes import module_hash, name_hash, pack_frame, stack_hash
from wire.schema import (
    Answer,
    Batch,
    Definitions,
    Module,
    ModuleKind,
    Name,
    Overhead,
    Series,
)

PYTHON = Module(ModuleKind.NAMED, b"python", "python")
SECOND_NS = 10**9
COST = Overhead(10**7, 10**6, 10**7, 10**7, 31 << 20, 11 << 20, 0.2, 0.4)
NOTHING = Overhead(0, 0, 0, 0, 0, 0, 0.0, 0.0)
Stack = tuple[Name, ...]


def python(*names: str) -> Stack:
    """A stack of Python functions, written as file:function."""
    return tuple(Name(n.partition(":")[2], f"/srv/{n.partition(':')[0]}", 1) for n in names)


def hash_of(stack: Stack) -> bytes:
    module = module_hash(PYTHON)
    return stack_hash(b"".join(pack_frame(module, name_hash(name)) for name in stack))


def definitions_of(node: str, run: bytes, stacks: Sequence[Stack]) -> Definitions:
    names = list(dict.fromkeys(name for stack in stacks for name in stack))
    number = {name: index for index, name in enumerate(names)}
    return Definitions(
        node=node,
        run=run,
        modules=[PYTHON],
        names=names,
        frame_module=bytes(4 * len(names)),
        frame_offset=np.arange(len(names), dtype="<u8").tobytes(),
        stack_hashes=b"".join(map(hash_of, stacks)),
        stack_lengths=np.array(list(map(len, stacks)), "<u2").tobytes(),
        stack_frames=np.array([number[n] for s in stacks for n in s], "<u4").tobytes(),
    )


@dataclass
class Fleet:
    """Hosts that report to an aggregator."""

    url: str
    engine: Any
    tokens: dict[str, str] = field(default_factory=dict)

    def send(
        self,
        host: str,
        samples: Mapping[Stack, int],
        labels: Mapping[str, str] | None = None,
        ago_s: float = 20,
        **changes: Any,
    ) -> None:
        """Ten seconds of a host with these samples of one series, and what they are called."""
        if host not in self.tokens:
            with session_scope(self.engine) as session:
                self.tokens[host] = create_token(session, host)
        run = os.urandom(16)
        columns: dict[str, Any] = {
            "node": host,
            "run": run,
            "sequence": 1,
            "collector": "cpu",
            "online_cpus": 4,
            "start_ns": time.time_ns() - round(ago_s * SECOND_NS),
            "duration_ns": 10 * SECOND_NS,
            "rate_millihertz": 19_000,
            "series": [Series(dict(labels or {"service": "shop"}))],
            "stack_hashes": b"".join(map(hash_of, samples)),
            "series_index": bytes(4 * len(samples)),
            "counts": np.array(list(samples.values()), "<u4").tobytes(),
            "lost": {},
            "overhead": COST,
            "agent_version": "0.1.0",
            "facts": {},
        }
        answer = decode(self.post(host, "batches", Batch(**{**columns, **changes})), Answer)
        if answer.want:
            self.post(host, "definitions", definitions_of(host, run, list(samples)))
        # However long the test takes, the host is not late.
        self.sql("UPDATE nodes SET last_seen_at = now() + interval '1 hour'")

    def post(self, host: str, place: str, body: Batch | Definitions) -> bytes:
        headers = {"Authorization": f"Bearer {self.tokens[host]}"}
        request = Request(f"{self.url}api/v1/{place}", encode(body), headers)
        with urlopen(request) as answer:
            return bytes(answer.read())

    def sql(self, statement: str) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(statement))

    def ask(self, **parameters: str) -> Any:
        query = "&".join(f"{key}={value}" for key, value in parameters.items())
        with urlopen(f"{self.url}api/v1/flamegraph?{query}") as answer:
            return json.load(answer)


@pytest.fixture
def fleet(postgres_url: str, aggregator_url: str) -> Iterator[Fleet]:
    engine = create_sync_database(postgres_url)
    yield Fleet(aggregator_url, engine)
    engine.dispose()


@pytest.fixture
def page(page_at: Callable[[str], Any], fleet: Fleet) -> Any:
    """The aggregator's page, not opened yet."""
    return page_at(fleet.url)


def rows(page: Any) -> list[str]:
    """The first cell of the listed functions, top to bottom."""
    found: list[str] = page.script(
        """return [...document.querySelectorAll("#functions tr.row")].map((row) =>
          row.cells[0].textContent.replace(/\\s+/g, " ").trim());"""
    )
    return found


def asked(page: Any) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.address()).query)


def click_row(page: Any, name: str) -> None:
    page.wait(lambda: name in rows(page))
    page.find(f"#functions tr.row:nth-child({rows(page).index(name) + 1})").click()


def picked(page: Any) -> list[str]:
    found: list[str] = page.script(
        """return [...document.querySelectorAll("#functions tr[aria-selected=true]")].map((row) =>
          row.cells[0].textContent.replace(/\\s+/g, " ").trim());"""
    )
    return found


def test_a_click_on_a_row_means_that_function_and_leaves_the_search(
    page: Any, fleet: Fleet
) -> None:
    fleet.send(
        "web-1",
        {python("a.py:run"): 60, python("b.py:run"): 40, python("a.py:run", "b.py:runner"): 30},
    )
    page.open("?live=0&search=ru")
    page.wait(lambda: rows(page) == ["run a.py", "run b.py", "runner"])
    click_row(page, "run b.py")
    page.wait(lambda: picked(page) == ["run b.py"])
    assert page.find("#search").get_attribute("value") == "ru"
    assert asked(page)["search"] == ["ru"]
    assert page.text("#sel") == "run (b.py)"
    assert rows(page) == ["run a.py", "run b.py", "runner"]

    # The link keeps it; what is drawn in its colour is that function alone.
    page.open("?" + urlsplit(page.address()).query)
    page.wait(lambda: picked(page) == ["run b.py"])
    for key in ("n", "N"):
        page.press(key)
        page.wait(lambda: page.text("#sel") == "run (b.py)")

    # Callers are those of that function, not of its namesake.
    page.press("s")
    page.wait(lambda: "run (b.py)" in page.text("#callers .me"))
    assert "Calls 0" in page.text("#callers")

    page.find("#tab-functions").click()
    click_row(page, "run b.py")
    page.wait(lambda: picked(page) == [])
    assert "function" not in asked(page)


def test_enter_in_the_filter_means_what_was_typed(page: Any, fleet: Fleet) -> None:
    for service in ("a-api", "api", "api-2"):
        fleet.send("web-1", {python("a.py:run"): 60}, {"service": service})
    page.open("?live=0")
    field_ = page.find("#new-filter")
    field_.send_keys("service=api")
    page.wait(lambda: page.find("#options").text.startswith("api"))
    field_.send_keys(Keys.ENTER)
    page.wait(lambda: page.text("#answer").startswith("api used"))
    assert asked(page)["query"] == ['{service="api"}']

    # Nothing but a name is no filter; a value that nothing has is one.
    page.open("?live=0")
    field_ = page.find("#new-filter")
    field_.send_keys("service=")
    page.wait(lambda: page.find("#options").text.startswith("a-api"))
    field_.send_keys(Keys.ENTER)
    assert "query" not in asked(page)
    field_.send_keys("ap", Keys.ENTER)
    page.wait(lambda: page.data("state") == "empty")
    assert asked(page)["query"] == ['{service="ap"}']

    # Tab completes, and a selector as in links is taken whole.
    page.open("?live=0")
    field_ = page.find("#new-filter")
    field_.send_keys("service=a-")
    page.wait(lambda: page.find("#options").text.startswith("a-api"))
    field_.send_keys(Keys.TAB)
    page.wait(lambda: page.text("#answer").startswith("a-api used"))
    page.open("?live=0")
    page.find("#new-filter").send_keys("{service=~'api.*', host!=\"x\"}", Keys.ENTER)
    page.wait(lambda: asked(page).get("query") == ['{service=~"api.*", host!="x"}'])


def test_a_filter_that_cannot_be_read_is_said_to_be_left_out(page: Any, fleet: Fleet) -> None:
    fleet.send("web-1", {python("a.py:run"): 60}, {"service": "api"})
    page.open("?query=nonsense")
    page.wait(lambda: "It is left out here" in page.text("#notice"))
    assert "nonsense" in page.text("#notice")
    page.next_answer()
    assert "nonsense" in page.text("#notice")
    page.find("#new-filter").send_keys("service=api", Keys.ENTER)
    page.wait(lambda: page.text("#notice") == "")


def test_a_question_that_is_refused_says_nothing_of_the_hosts(page: Any, fleet: Fleet) -> None:
    fleet.send("web-1", {python("a.py:run"): 60})
    page.open('?query={service=~"("}', ready=False)
    page.wait(lambda: page.data("state") == "error")
    page.wait(lambda: health(page)[0] == "ok")


def test_only_this_service_means_that_service(page: Any, fleet: Fleet) -> None:
    fleet.send("web-1", {python("a.py:run"): 60}, {"service": "api"})
    fleet.send("web-1", {python("b.py:work"): 90}, {"service": ""})
    page.open("?live=0")
    page.press(Keys.ARROW_DOWN)
    page.wait(lambda: page.text("#sel") == "[no service]")
    page.find("#selected .acts button").click()
    page.wait(lambda: asked(page).get("query") == ['{service=""}'])
    page.wait(lambda: rows(page) == ["work"])


def test_what_is_not_drawn_is_said_with_its_weight_and_drawn_when_zoomed_into(
    page: Any, fleet: Fleet
) -> None:
    # 300 stacks of 100 functions: 30,000 frames, of which a page draws 20,000.
    deep = [f"deep.py:d{level}" for level in range(99)]
    fleet.send("web-1", {python(f"root.py:r{n}", *deep): 20 for n in range(300)})
    page.open("?live=0")
    assert int(page.data("frames")) == 20_000
    words = re.search(r"other, ([\d.]+) %: too small to draw", page.text("#legend"))
    assert words is not None
    assert float(words[1]) > 50
    assert f"{words[1]} %too small to draw" in page.text("#coverage").replace("% too", "%too")
    # All time is in d98 itself, of which there is no frame.
    page.wait(lambda: rows(page)[0] == "d98")
    assert "100 %" in page.find("#functions tr.row").text
    page.find("#search").send_keys("d98")
    page.wait(lambda: page.text("#hits").startswith("≥ "))
    page.find("#functions tr.row").click()
    page.wait(lambda: "too small to draw" in page.text(".toasts"))
    page.press(Keys.ESCAPE)

    page.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    page.wait(lambda: re.fullmatch(r"r\d+", page.text("#sel")))
    root = page.text("#sel")
    answers = page.data("answers")
    page.press(Keys.ENTER)
    page.wait(lambda: page.data("answers") != answers)
    for _ in range(99):
        page.press(Keys.ARROW_DOWN)
    page.wait(lambda: page.text("#sel") == "d98")

    # A link to it opens it, and so does a click on what stands for it.
    link = "?" + urlsplit(page.address()).query
    page.open(link)
    page.wait(lambda: page.text("#sel") == root)
    for _ in range(99):
        page.press(Keys.ARROW_DOWN)
    page.wait(lambda: page.text("#sel") == "d98")


def health(page: Any) -> tuple[str, str]:
    """The tone of the dot and the words beside it."""
    tone = str(page.find("#health").get_attribute("class")).split()[-1]
    return tone, str(page.text("#health")).replace("\u00a0", " ")


def test_a_dead_agent_does_not_look_healthy(page: Any, fleet: Fleet) -> None:
    fleet.send("web-1", {python("a.py:run"): 60})
    page.open()
    page.wait(lambda: health(page)[0] == "ok")
    facts = {"breaker": "crashes: 3 crashes within 10 minutes"}
    fleet.send("web-2", {}, facts=facts, overhead=NOTHING, series=[])
    page.wait(lambda: health(page)[0] == "bad")
    assert "1 of 2 hosts reporting" in health(page)[1]
    assert "1 detached" in health(page)[1]
    page.wait(lambda: "1 agent detached: web-2" in page.text("#notice"))

    page.find("#health").click()
    page.wait(lambda: page.find("#hosts").is_displayed())
    cells = (
        "return [...document.querySelector('#hosts-table tr.host').cells].map((c) => c.innerText)"
    )
    name, state, rate, cost, memory, *_ = page.script(cells)
    assert (name, state, rate, cost, memory) == ("web-2", "Detached", "\u2013", "\u2013", "\u2013")
    page.find("#hosts-table tr.host .disclose").click()
    told = " ".join(page.find("tr.detail:not([hidden]) dl").text.split())
    assert "Detached crashes: 3 crashes within 10 minutes" in told
    assert "Cost unknown" in told
    assert "Lost, last minute unknown" in told
    assert "0.00" not in told


def test_alerts_wrong_clocks_and_lost_batches_are_on_the_page(page: Any, fleet: Fleet) -> None:
    for host in ("web-1", "web-2", "web-3"):
        fleet.send(host, {python("a.py:run"): 60})
    fleet.sql(
        "INSERT INTO alerts (rule, node_id, value, threshold) "
        "SELECT 'agent_limited', id, 1, 0 FROM nodes WHERE name = 'web-1'"
    )
    fleet.sql("UPDATE nodes SET clock_offset_ms = -95000 WHERE name = 'web-2'")
    fleet.sql("UPDATE nodes SET lost_batches = 3 WHERE name = 'web-3'")
    page.open()
    page.wait(lambda: health(page)[0] == "bad")
    assert "1 alert" in health(page)[1]
    assert "1 wrong clock" in health(page)[1]
    page.wait(lambda: "web-1: its agent met a limit of its unit" in page.text("#notice"))
    page.find("#health").click()
    page.wait(lambda: page.find("#hosts").is_displayed())
    table = " ".join(page.find("#hosts-table").text.split())
    assert "Alert: its agent met a limit of its unit" in table
    assert "clock 1.6 min ahead" in table
    assert "3 batches" in table

    # What is over its budget is not green either; nor is what was last known of a server gone.
    fleet.sql("DELETE FROM alerts")
    fleet.sql("UPDATE nodes SET clock_offset_ms = 0")
    page.wait(lambda: health(page)[0] == "ok")
    budget = {"budget_percent": "0.1"}
    fleet.send("web-1", {python("a.py:run"): 60}, facts=budget)
    page.wait(lambda: health(page)[0] == "warn")
    assert "1 over budget" in health(page)[1]


def blocked(chromium: webdriver.Chrome, *patterns: str) -> None:
    chromium.execute_cdp_cmd("Network.enable", {})
    chromium.execute_cdp_cmd("Network.setBlockedURLs", {"urls": list(patterns)})


def curve(page: Any) -> str:
    return str(page.script("return document.querySelector('.tl-line').getAttribute('d') ?? ''"))


def test_gaps_in_the_timeline_are_gaps_and_a_failed_one_says_so(
    page: Any, fleet: Fleet, chromium: webdriver.Chrome
) -> None:
    for ago_s in (20, 200, 400):
        fleet.send("web-1", {python("a.py:run"): 60}, ago_s=ago_s)
    fleet.send("web-1", {}, ago_s=300)
    page.open()
    page.wait(lambda: curve(page).count("M") == 4)  # the idle one is a line at zero, no gap
    blocked(chromium, "*/api/v1/timeline*")
    try:
        page.wait(lambda: "No timeline" in page.text(".tl-failure"))
        assert page.find(".tl-failure").is_displayed()
        assert curve(page) == ""
        assert page.data("state") == "ok"
    finally:
        blocked(chromium)
    page.wait(lambda: curve(page).count("M") >= 4)
    assert not page.find(".tl-failure").is_displayed()


def test_a_server_that_hangs_is_not_live(
    page: Any, fleet: Fleet, chromium: webdriver.Chrome
) -> None:
    fleet.send("web-1", {python("a.py:run"): 60})
    page.open()
    assert page.text("#live") == "Live"
    slow = {"offline": False, "latency": 600_000, "downloadThroughput": -1, "uploadThroughput": -1}
    chromium.execute_cdp_cmd("Network.enable", {})
    chromium.execute_cdp_cmd("Network.emulateNetworkConditions", slow)
    try:
        page.wait(lambda: page.text("#live") == "Not live")
        assert re.search(r"No answer for \d+ s\.", page.text("#notice"))
        page.wait(lambda: health(page) == ("idle", "Hosts unknown"))
    finally:
        chromium.execute_cdp_cmd("Network.emulateNetworkConditions", {**slow, "latency": 0})
    page.wait(lambda: page.text("#live") == "Live")
    page.wait(lambda: health(page)[0] == "ok")


@pytest.fixture
def zone(chromium: webdriver.Chrome) -> Iterator[None]:
    """A browser in Berlin, where 02:30 came twice on 26 October 2025."""
    chromium.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "Europe/Berlin"})
    yield
    chromium.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": ""})


def test_the_hour_that_comes_twice_is_told_apart(page: Any, fleet: Fleet, zone: None) -> None:
    fleet.send("web-1", {python("a.py:run"): 60})
    page.open("?from=2025-10-26T01:30:00Z&until=2025-10-26T01:45:00Z", ready=False)
    page.wait(lambda: "02:30 UTC+01:00 \u2013 Sun 02:45 UTC+01:00" in page.text("#custom"))
    page.find("#custom").click()
    value = "return document.querySelector(arguments[0]).value"
    assert page.script(value, "#custom-from") in ("2025-10-26T02:30:00", "2025-10-26T02:30")
    assert page.script(value, "#custom-zone") == "60"
    page.find("#custom-apply").click()
    page.wait(lambda: asked(page)["from"] == ["2025-10-26T01:30:00Z"])

    # Without an offset it is not taken.
    page.find("#custom").click()
    page.script("document.querySelector('#custom-zone').value = 'local'")
    page.find("#custom-apply").click()
    page.wait(lambda: "comes twice" in page.text("#custom-problem"))
    page.script("document.querySelector('#custom-zone').value = '120'")
    page.find("#custom-apply").click()
    page.wait(lambda: asked(page)["from"] == ["2025-10-26T00:30:00Z"])
    page.wait(lambda: "02:30 UTC+02:00" in page.text("#custom"))


def test_a_wrong_clock_of_the_viewer_changes_nothing(
    page: Any, fleet: Fleet, chromium: webdriver.Chrome
) -> None:
    fleet.send("web-1", {python("a.py:run"): 60})
    source = "{ const now = Date.now; Date.now = () => now() - 7_200_000; }"
    added = chromium.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": source})
    try:
        # From a time that this viewer's clock has not reached until now.
        begun = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 600))
        page.open(f"?from={begun}&live=0")
        page.wait(lambda: rows(page) == ["run"])
        page.wait(lambda: curve(page) != "")
        page.find("#earlier").click()
        page.wait(lambda: asked(page).get("until") == [begun])
        page.open("?live=0")
        page.find("#custom").click()
        shown = page.script("return document.querySelector('#custom-until').value")
        assert abs(time.time() - time.mktime(time.strptime(shown[:16], "%Y-%m-%dT%H:%M"))) < 1800
    finally:
        chromium.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_on_a_phone_nothing_is_cut_off(page: Any, fleet: Fleet, chromium: webdriver.Chrome) -> None:
    fleet.send("web-1", {python("a.py:run"): 60, python("b.py:run"): 40})
    facts = {"breaker": "crashes: 3 crashes within 10 minutes"}
    fleet.send("a-host-with-a-long-name-1", {}, facts=facts, overhead=NOTHING, series=[])
    chromium.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True},
    )
    page.open()
    assert page.script("return document.documentElement.scrollWidth") <= 390
    page.find("#health").click()
    page.wait(lambda: page.find("#hosts").is_displayed())
    assert len(page.driver.find_elements(By.CSS_SELECTOR, "#hosts-table tr.host")) == 2
    assert page.script("return document.documentElement.scrollWidth") <= 390
