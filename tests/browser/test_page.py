"""The page on the running demo, as somebody uses it: look, zoom, search, follow now, filter."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

SHARES = {"half_of_it": 0.5, "three_tenths": 0.3, "a_fifth": 0.2}


def of_service(demo: Any, more: str = "") -> str:
    """The query string of a view of the busy program's service."""
    return "?query=" + quote(f'{{service="{demo.service}"}}') + more


def selected(page: Any) -> str:
    """The name of the selected frame, as its tree item says it."""
    return str(page.text("#flame-item")).rpartition(", ")[0]


def crumbs(page: Any) -> list[str]:
    """Names of the zoom path, without the ends' abbreviation."""
    return [
        button.get_attribute("title")
        for button in page.find("#crumbs").find_elements(By.CSS_SELECTOR, "button")
    ]


def click_level(page: Any, level: int, share: float = 0.5) -> None:
    """Click into a level of the icicle (0 is the root), at a share of the width."""
    x, y = page.script(
        """const box = document.querySelector("#flame canvas").getBoundingClientRect();
        const css = getComputedStyle(document.documentElement);
        const row = parseFloat(css.getPropertyValue("--frame"));
        return [box.left + box.width * arguments[1], box.top + 4 + row * (arguments[0] + 0.5)];""",
        level,
        share,
    )
    actions = ActionChains(page.driver)
    pointer = actions.w3c_actions.pointer_action
    pointer.move_to_location(int(x), int(y))  # type: ignore[no-untyped-call]
    pointer.click()
    actions.perform()


def functions(page: Any) -> dict[str, tuple[float, float]]:
    """Self and total in percent of each listed function."""
    rows = page.script(
        """return [...document.querySelectorAll("#functions tr.row")].map((row) =>
          [".fn span", "td:nth-child(2)", "td:nth-child(3)"].map(
            (cell) => row.querySelector(cell).textContent));"""
    )
    value = re.compile(r"^([\d.]+) %")
    return {
        name: (float(value.match(own)[1]), float(value.match(total)[1]))  # type: ignore[index]
        for name, own, total in rows
    }


def test_it_draws_real_frames_with_their_shares(page: Any, demo: Any) -> None:
    page.open(of_service(demo))
    assert int(page.data("frames")) >= 5
    assert re.fullmatch(
        rf"{re.escape(demo.service)} used [\d.]+ cores on \S+", page.text("#answer")
    )
    assert "samples" in page.text("#coverage")
    assert "Hz" in page.text("#coverage")

    # the three functions of the program have the shares that it was written with
    listed = functions(page)
    work = sum(listed[name][0] for name in SHARES)
    for name, share in SHARES.items():
        assert listed[name][0] / work == pytest.approx(share, abs=0.05), listed
    assert listed["serve_requests"][1] == pytest.approx(work, abs=3)

    # and the canvas shows more than its background
    colours = page.script(
        """const canvas = document.querySelector("#flame canvas");
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, 120);
        const seen = new Set();
        for (let i = 0; i < data.length; i += 4) seen.add(data.slice(i, i + 3).join());
        return seen.size;"""
    )
    assert colours > 3


def test_a_click_zooms_and_backspace_goes_back(page: Any, demo: Any) -> None:
    page.open(of_service(demo))
    assert crumbs(page) == ["all"]
    click_level(page, 2)
    page.wait(lambda: len(crumbs(page)) == 3)
    assert crumbs(page)[:2] == ["all", demo.service]
    assert crumbs(page)[2] == selected(page) == page.text("#sel")
    zoomed = parse_qs(urlsplit(page.driver.current_url).query)["zoom"]
    assert zoomed

    page.press(Keys.BACKSPACE)
    page.wait(lambda: crumbs(page) == ["all"])
    assert "zoom" not in urlsplit(page.driver.current_url).query

    # a link to the zoomed view opens it zoomed
    page.open(of_service(demo, f"&zoom={zoomed[0]}"))
    assert len(crumbs(page)) == 3


def test_it_can_be_used_with_the_keyboard_alone(page: Any, demo: Any) -> None:
    page.open(of_service(demo))
    page.press(Keys.ARROW_DOWN)
    assert selected(page) == demo.service
    page.press(Keys.ARROW_DOWN, Keys.ENTER)
    page.wait(lambda: len(crumbs(page)) == 3)
    inner = selected(page)
    assert crumbs(page)[2] == inner
    page.press(Keys.ARROW_UP)
    assert selected(page) == demo.service
    page.press(Keys.ESCAPE)
    page.wait(lambda: crumbs(page) == ["all"])
    assert selected(page) == "all"

    page.press("i")
    assert page.find("#flip").get_attribute("aria-pressed") == "true"
    page.press(Keys.ARROW_UP)
    assert selected(page) == demo.service, "deeper is up in a flame"
    page.press("?")
    assert page.find("#help").is_displayed()
    page.find("#help [data-close]").click()


def test_search_gives_the_share_and_leads_to_the_frames(page: Any, demo: Any) -> None:
    page.open(of_service(demo))
    page.press("/")
    search = page.driver.switch_to.active_element
    assert search.get_attribute("id") == "search"
    search.send_keys("/^(three_tenths|a_fifth)$/")
    page.wait(lambda: page.text("#hits"))
    share = float(page.text("#hits").removesuffix(" %"))
    assert set(functions(page)) == {"three_tenths", "a_fifth"}
    listed = functions(page)
    assert share == pytest.approx(sum(total for _, total in listed.values()), abs=1)

    search.send_keys(Keys.ENTER)
    first = selected(page)
    assert first in ("three_tenths", "a_fifth")
    page.press("n")
    page.wait(lambda: selected(page) != first)
    assert selected(page) in ("three_tenths", "a_fifth")

    search.send_keys(Keys.CONTROL, "a")
    search.send_keys("(")
    page.wait(lambda: page.text("#hits") == "0.0 %")
    search.send_keys(Keys.CONTROL, "a")
    search.send_keys("/(/")
    page.wait(lambda: page.text("#hits") == "not a regex")


def test_callers_and_callees_of_a_frame(page: Any, demo: Any) -> None:
    page.open(of_service(demo, "&search=serve_requests"))
    page.find("#functions tr.row").click()
    assert selected(page) == "serve_requests"
    page.press("s")
    callees = page.find("#callers").text.partition("Calls ")[2]
    assert set(SHARES) <= set(callees.split("\n"))


def test_it_follows_now_and_keeps_its_place(page: Any, demo: Any) -> None:
    page.open(of_service(demo, "&search=a_fifth"))
    click_level(page, 2)
    page.wait(lambda: len(crumbs(page)) == 3)
    page.press(Keys.ARROW_DOWN)
    place = (crumbs(page), selected(page), page.driver.current_url)
    before = int(page.data("totalNs"))

    # the busy program goes on, so a later answer holds more CPU time
    page.wait(lambda: int(page.data("totalNs")) > before)
    assert (crumbs(page), selected(page), page.driver.current_url) == place
    assert page.find("#search").get_attribute("value") == "a_fifth"
    assert page.text("#hits")

    # stopped, it stays as it is
    page.find("#live").click()
    assert page.find("#live").get_attribute("aria-pressed") == "false"
    answers = page.data("answers")
    time.sleep(6)
    assert page.data("answers") == answers


def test_filters_by_service_from_the_completion(page: Any, demo: Any) -> None:
    page.open()
    total = int(page.data("totalNs"))
    field = page.find("#new-filter")
    field.send_keys("servi")
    page.wait(lambda: "service" in page.find("#options").text)
    field.send_keys(Keys.ENTER)
    assert field.get_attribute("value") == "service="
    field.send_keys(demo.service[:-1])
    page.wait(lambda: demo.service in page.find("#options").text)
    field.send_keys(Keys.ENTER)
    page.wait(lambda: page.text("#answer").startswith(demo.service + " used"))
    assert int(page.data("totalNs")) < total * 1.5
    page.press(Keys.ARROW_DOWN)
    assert selected(page) == demo.service
    page.press(Keys.ARROW_RIGHT)
    assert selected(page) == demo.service, "no other service is shown"

    # the filter is in the link, and taking it away shows everything again
    assert "service" in urlsplit(page.driver.current_url).query
    page.find(".chip button:last-child").click()
    page.wait(lambda: "query" not in urlsplit(page.driver.current_url).query)
    page.wait(lambda: not page.text("#answer").startswith(demo.service))


def test_a_filter_that_matches_nothing_says_so(page: Any) -> None:
    page.open('?query={service="no-such-service"}', ready=False)
    page.wait(lambda: page.data("state") == "empty")
    assert "No samples match" in page.text("#state")
    page.find("#state button.primary").click()
    page.wait(lambda: page.data("state") == "ok")


def test_a_bad_filter_in_the_link_is_told(page: Any) -> None:
    page.open("?query=nonsense&from=yesterday")
    assert "nonsense" in page.text(".toasts")
    assert "yesterday" in page.text(".toasts")


def test_legend_dims_all_other_kinds(page: Any, demo: Any) -> None:
    page.open(of_service(demo))
    kind = page.find("#legend button")
    name = kind.get_attribute("data-kind")
    everything = functions(page)
    kind.click()
    pressed = page.find("#legend [aria-pressed=true]")
    assert pressed.get_attribute("data-kind") == name
    assert set(functions(page)) <= set(everything)
    assert " of " in page.text("#function-count")
    pressed.click()
    assert set(functions(page)) == set(everything)


def test_the_range_can_be_chosen_by_preset_keys_and_brush(page: Any) -> None:
    page.open()
    page.find("[data-preset='1h']").click()
    page.wait(lambda: "from=now-1h" in page.driver.current_url)
    page.next_answer()

    plot = page.find(".tl-plot")
    width = plot.size["width"]
    actions = ActionChains(page.driver)
    actions.move_to_element_with_offset(plot, int(width * 0.3), 0).click_and_hold()
    actions.move_by_offset(int(width * 0.15), 0).release().perform()
    page.wait(lambda: "until=2" in page.driver.current_url)
    assert page.find("#live").get_attribute("aria-pressed") == "false"

    brushed = parse_qs(urlsplit(page.driver.current_url).query)
    page.find("#earlier").click()
    page.wait(lambda: parse_qs(urlsplit(page.driver.current_url).query)["until"] == brushed["from"])
    page.find("body").send_keys("]")
    page.wait(lambda: parse_qs(urlsplit(page.driver.current_url).query) == brushed)


def test_dark_and_light(page: Any, demo: Any) -> None:
    def corner() -> list[int]:
        return list(
            page.script(
                """const canvas = document.querySelector("#flame canvas");
                const { data } = canvas.getContext("2d").getImageData(1, canvas.height - 2, 1, 1);
                return [...data];"""
            )
        )

    page.open(of_service(demo, "&theme=light"))
    light = corner()
    assert min(light[:3]) > 200
    page.find("#theme").click()
    assert page.script("return document.documentElement.dataset.theme") == "dark"
    assert max(corner()[:3]) < 80
    # the choice outlives the page
    page.open(of_service(demo))
    assert max(corner()[:3]) < 80
    page.find("#theme").click()
    assert corner() == light


def test_hosts_show_what_profiling_costs(page: Any) -> None:
    page.open()
    page.wait(lambda: "1 of 1 host reporting" in page.text("#health"))
    page.wait(lambda: re.search(r"profiling costs [\d.]+ % CPU", page.text("#health")))
    page.find("#health").click()
    row = page.find("#hosts-table tbody tr").text
    assert "Reporting" in row
    assert "99 Hz" in row
    assert re.search(r"[\d.]+ %", row)
    assert re.search(r"[\d.]+ MB", row)


def test_an_export_holds_the_shown_stacks(
    page: Any, demo: Any, chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    behaviour = {"behavior": "allow", "downloadPath": str(tmp_path)}
    chromium.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    page.open(of_service(demo))
    for index, name in enumerate(["flamefleet.pb.gz", "flamefleet.folded", "flamefleet.png"]):
        page.find("#export").click()
        page.driver.find_elements(By.CSS_SELECTOR, "#export-menu button")[index].click()
        page.wait(lambda name=name: (tmp_path / name).exists())
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
    page.open(of_service(demo))
    frames = page.data("frames")
    network(latency=3000)
    page.find("[data-preset='5m']").click()
    page.wait(lambda: page.data("state") == "loading")
    assert page.data("frames") == frames
    opacity = page.script("return getComputedStyle(document.querySelector('#flame')).opacity")
    assert float(opacity) < 1

    # it comes in the end
    page.wait(lambda: page.data("state") == "ok")
    assert not page.find("#state").is_displayed()

    # or is not waited for: the old view comes back, and says what it shows
    page.find("[data-preset='1h']").click()
    page.wait(lambda: page.data("state") == "loading")
    page.find("#state button").click()
    assert page.data("state") == "ok"
    assert "Still showing" in page.text("#notice")
    assert page.find("#live").get_attribute("aria-pressed") == "false"


def test_without_the_server_the_last_answer_stays(
    page: Any, demo: Any, network: Callable[..., None]
) -> None:
    page.open(of_service(demo))
    frames = page.data("frames")
    network(offline=True)
    # following: a quiet line, the graph stays
    page.wait(lambda: "can't be reached" in page.text("#notice"))
    assert page.data("state") == "ok"
    # a new question: the error, with a way on
    page.find("[data-preset='5m']").click()
    page.wait(lambda: page.data("state") == "error")
    assert page.data("frames") == frames

    network(offline=False)
    page.find("#state button.primary").click()
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
        await new Promise((done) => setTimeout(done, 200));
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
    page.open(of_service(demo))
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
