"""The page around the graph: hosts, exports, and what it says when there is nothing to draw."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By


def test_a_filter_that_matches_nothing_says_so(page: Any) -> None:
    page.open('?query={service="no-such-service"}', ready=False)
    page.wait(lambda: page.data("state") == "empty")
    assert "No samples match" in page.text("#state")
    page.find("#state button.primary").click()
    page.wait(lambda: page.data("state") == "ok")


def test_a_bad_filter_in_the_link_is_told(page: Any) -> None:
    def is_told() -> bool:  # for five seconds, which a slow machine may need to look there
        page.open("?query=nonsense&from=yesterday", ready=False)
        told = page.script("return document.querySelector('.toasts')?.textContent ?? ''")
        return "nonsense" in told and "yesterday" in told

    page.wait(is_told)


def test_hosts_show_what_profiling_costs(page: Any) -> None:
    page.open()
    page.wait(lambda: "1 of 1 host reporting" in page.text("#health"))
    page.wait(lambda: re.search(r"profiling costs [\d.]+ % CPU", page.text("#health")))
    page.find("#health").click()
    page.wait(lambda: page.find("#hosts").is_displayed())
    row = page.find("#hosts-table tbody tr").text
    # On a loaded machine the agent's governor may be at work: "49 of 99 Hz".
    assert re.search("Reporting|Reduced", row)
    assert "99 Hz" in row
    assert re.search(r"[\d.]+ %", row)
    assert re.search(r"[\d.]+ MB", row)


def test_an_export_holds_the_shown_stacks(
    page: Any, demo: Any, chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    behaviour = {"behavior": "allow", "downloadPath": str(tmp_path)}
    chromium.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    page.open(demo.view())
    for index, name in enumerate(["flamefleet.pb.gz", "flamefleet.folded", "flamefleet.png"]):
        page.find("#export").click()
        page.driver.find_elements(By.CSS_SELECTOR, "#export-menu button")[index].click()
        page.wait(lambda name=name: (tmp_path / name).exists() and (tmp_path / name).stat().st_size)
    page.wait(lambda: not list(tmp_path.glob("*.crdownload")))
    folded = (tmp_path / "flamefleet.folded").read_text()
    assert all(line.startswith(demo.service) for line in folded.splitlines())
    assert "serve_requests;three_tenths" in folded
    assert (tmp_path / "flamefleet.pb.gz").read_bytes()[:2] == b"\x1f\x8b"
    assert (tmp_path / "flamefleet.png").read_bytes()[:4] == b"\x89PNG"


@pytest.fixture
def network(chromium: webdriver.Chrome) -> Iterator[Callable[..., None]]:
    """network(offline=False, latency=0): how the browser's network behaves; latency in ms."""

    def behave(offline: bool = False, latency: int = 0) -> None:
        throughput = {"downloadThroughput": -1, "uploadThroughput": -1}
        conditions = {"offline": offline, "latency": latency, **throughput}
        chromium.execute_cdp_cmd("Network.enable", {})
        chromium.execute_cdp_cmd("Network.emulateNetworkConditions", conditions)

    yield behave
    behave()


def test_a_slow_answer_leaves_the_old_view_and_can_be_cancelled(
    page: Any, demo: Any, network: Callable[..., None]
) -> None:
    page.open(demo.view())
    frames = page.data("frames")
    network(latency=120_000)
    page.find("[data-preset='5m']").click()
    page.wait(lambda: page.data("state") == "loading")
    assert page.data("frames") == frames
    opacity = "return getComputedStyle(document.querySelector('#flame')).opacity"
    page.wait(lambda: float(page.script(opacity)) < 1)

    # it is not waited for: the old view comes back, and says what it shows
    page.find("#state button").click()
    page.wait(lambda: page.data("state") == "ok")
    page.wait(lambda: "Still showing" in page.text("#notice"))
    page.wait(lambda: page.find("#live").get_attribute("aria-pressed") == "false")

    # or comes in the end
    network(latency=1_500)
    answers = page.data("answers")
    page.find("[data-preset='1h']").click()
    page.wait(lambda: page.data("answers") != answers)
    page.wait(lambda: page.data("state") == "ok")
    assert not page.find("#state").is_displayed()


def test_without_the_server_the_last_answer_stays(
    page: Any, demo: Any, network: Callable[..., None]
) -> None:
    page.open(demo.following())
    network(offline=True)
    # following: a quiet line, the graph stays
    page.wait(lambda: "can't be reached" in page.text("#notice"))
    frames = page.data("frames")
    assert int(frames) > 1
    assert page.data("state") == "ok"
    # a new question: the error, with a way on
    page.find("[data-preset='5m']").click()
    page.wait(lambda: page.data("state") == "error")
    assert page.data("frames") == frames
    assert page.find("#state button.primary").text == "Try again"

    network(offline=False)
    # By its own click: the page asks every few seconds, too, and takes the card away then.
    page.script("document.querySelector('#state button.primary').click()")
    page.wait(lambda: page.data("state") == "ok")
    told = ("ERR_INTERNET_DISCONNECTED", "can't be reached")
    assert all(any(words in line for words in told) for line in page.console())


def test_the_policy_holds_in_the_browser(page: Any) -> None:
    page.open()
    blocked = page.promise(
        """const blocked = [];
        const note = (event) => blocked.push(event.effectiveDirective);
        document.addEventListener("securitypolicyviolation", note);
        const script = document.createElement("script");
        script.textContent = "window.injected = true";
        document.body.append(script);
        const element = document.createElement("p");
        document.body.append(element);
        element.setAttribute("style", "color: red");
        await fetch("https://example.org/").catch(() => {});
        for (let i = 0; i < 1000 && blocked.length < 3; i++)
          await new Promise((done) => setTimeout(done, 100));
        return { blocked, injected: Boolean(window.injected) };"""
    )
    assert not blocked["injected"]
    assert set(blocked["blocked"]) == {"script-src-elem", "style-src-attr", "connect-src"}
    assert all("Content Security Policy" in line for line in page.console())


def test_on_a_phone_nothing_is_cut_off(page: Any, demo: Any, chromium: webdriver.Chrome) -> None:
    chromium.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True},
    )
    page.open(demo.view())
    assert page.script("return document.documentElement.scrollWidth") <= 390
    assert int(page.data("frames")) >= 5
    assert page.find("#search").is_displayed()
    assert page.find("#live").is_displayed()


def test_first_run_listens_for_samples(page_at: Callable[[str], Any], aggregator_url: str) -> None:
    page = page_at(aggregator_url).open(ready=False)
    page.wait(lambda: page.data("state") == "first-run")
    assert "Listening for the first samples" in page.text("#state")
    assert "flamefleet-agent check" in page.text("#state")
    waited = page.text("#state")
    page.wait(lambda: page.text("#state") != waited)
    assert page.text("#health").startswith("No hosts yet")
    assert page.console() == []
