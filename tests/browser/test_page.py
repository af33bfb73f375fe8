"""The page on the running demo, as somebody uses it: look, zoom, search, follow now, filter."""

import math
import re
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

SHARES = {"half_of_it": 0.5, "three_tenths": 0.3, "a_fifth": 0.2}
RATE_HZ, LOWEST_HZ = 99, 11  # the demo's, and the lowest of the agent's governor


def selected(page: Any) -> str:
    """The name of the selected frame, as its tree item says it."""
    return str(page.text("#flame-item")).rpartition(", ")[0]


def crumbs(page: Any) -> list[str]:
    """Names of the zoom path, without the ends' abbreviation."""
    # In one go, as whatever reads lists here: the page goes on replacing them.
    titles: list[str] = page.script(
        """return [...document.querySelectorAll("#crumbs button")].map((button) => button.title);"""
    )
    return titles


def asked(page: Any) -> dict[str, list[str]]:
    """The view as the page's URL tells it."""
    return parse_qs(urlsplit(page.address()).query)


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
    pointer.move_to_location(int(x), int(y))  # type: ignore[no-untyped-call]  # selenium has no types for it
    pointer.click()
    actions.perform()


def functions(page: Any) -> dict[str, tuple[float, float]]:
    """Self and total in percent of each listed function."""
    rows = page.script(
        """return [...document.querySelectorAll("#functions tr.row")].map((row) =>
          [".fn span", "td:nth-child(2)", "td:nth-child(3)"].map(
            (cell) => row.querySelector(cell).textContent));"""
    )

    def percent(shown: str) -> float:
        found = re.match(r"([\d.]+) %", shown)
        assert found is not None, shown
        return float(found[1])

    return {name: (percent(own), percent(total)) for name, own, total in rows}


def samples(page: Any) -> int:
    """How many samples the shown answer has."""
    found = re.search(r"([\d,]+) samples", page.text("#coverage"))
    assert found is not None
    return int(found[1].replace(",", ""))


def cpu_seconds(page: Any) -> float:
    """How much CPU time the shown answer tells of."""
    return int(page.data("totalNs")) / 1e9


def has_full_rate(page: Any) -> bool:
    """Whether all of the shown answer was sampled at the demo's rate."""
    return samples(page) > 0.97 * RATE_HZ * cpu_seconds(page)


def test_it_draws_real_frames(page: Any, demo: Any) -> None:
    page.open(demo.view())
    assert int(page.data("frames")) >= 5
    assert re.fullmatch(
        rf"{re.escape(demo.service)} used [\d.]+ cores on \S+", page.text("#answer")
    )
    assert "samples" in page.text("#coverage")
    assert "Hz" in page.text("#coverage")

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
    page.open(demo.view())
    assert crumbs(page) == ["all"]
    click_level(page, 2)
    page.wait(lambda: len(crumbs(page)) == 3)
    assert crumbs(page)[:2] == ["all", demo.service]
    assert crumbs(page)[2] == selected(page) == page.text("#sel")
    page.wait(lambda: "zoom" in asked(page))
    zoomed = asked(page)["zoom"]

    page.press(Keys.BACKSPACE)
    page.wait(lambda: crumbs(page) == ["all"])
    page.wait(lambda: "zoom" not in asked(page))

    # a link to the zoomed view opens it zoomed
    page.open(demo.view(f"&zoom={zoomed[0]}"))
    page.wait(lambda: len(crumbs(page)) == 3)


def test_it_can_be_used_with_the_keyboard_alone(page: Any, demo: Any) -> None:
    page.open(demo.view())
    page.press(Keys.ARROW_DOWN)
    page.wait(lambda: selected(page) == demo.service)
    page.press(Keys.ARROW_DOWN, Keys.ENTER)
    page.wait(lambda: len(crumbs(page)) == 3)
    inner = selected(page)
    assert crumbs(page)[2] == inner
    page.press(Keys.ARROW_UP)
    page.wait(lambda: selected(page) == demo.service)
    page.press(Keys.ESCAPE)
    page.wait(lambda: crumbs(page) == ["all"])
    page.wait(lambda: selected(page) == "all")

    page.press("i")
    page.wait(lambda: page.find("#flip").get_attribute("aria-pressed") == "true")
    page.press(Keys.ARROW_UP)
    page.wait(lambda: selected(page) == demo.service)  # deeper is up in a flame
    page.press("?")
    page.wait(lambda: page.find("#help").is_displayed())
    page.find("#help [data-close]").click()


def test_search_gives_the_share_and_leads_to_the_frames(page: Any, demo: Any) -> None:
    page.open(demo.view())
    page.press("/")
    page.wait(lambda: page.script("return document.activeElement.id") == "search")
    search = page.driver.switch_to.active_element
    search.send_keys("/^(three_tenths|a_fifth)$/")
    # While it is typed, it finds what it says so far.
    page.wait(lambda: set(functions(page)) == {"three_tenths", "a_fifth"})
    share = float(page.text("#hits").removesuffix(" %"))
    listed = functions(page)
    assert share == pytest.approx(sum(total for _, total in listed.values()), abs=1)

    search.send_keys(Keys.ENTER)
    page.wait(lambda: selected(page) in ("three_tenths", "a_fifth"))
    place = page.text("#flame-item")
    page.press("n")
    page.wait(lambda: page.text("#flame-item") != place)
    assert selected(page) in ("three_tenths", "a_fifth")

    search.send_keys(Keys.CONTROL, "a")
    search.send_keys("(")
    page.wait(lambda: page.text("#hits") == "0.0 %")
    search.send_keys(Keys.CONTROL, "a")
    search.send_keys("/(/")
    page.wait(lambda: page.text("#hits") == "not a regex")


def test_callers_and_callees_of_a_frame(page: Any, demo: Any) -> None:
    page.open(demo.view("&search=serve_requests"))
    page.find("#functions tr.row").click()
    page.wait(lambda: selected(page) == "serve_requests")
    page.press("s")

    def callees() -> set[str]:
        return set(page.find("#callers").text.partition("Calls ")[2].split("\n"))

    page.wait(lambda: set(SHARES) <= callees())


def test_it_follows_now_and_keeps_its_place(page: Any, demo: Any) -> None:
    page.open(demo.following("&search=a_fifth"))
    click_level(page, 2)
    page.wait(lambda: len(crumbs(page)) == 3)
    zoomed = selected(page)
    page.press(Keys.ARROW_DOWN)
    page.wait(lambda: selected(page) != zoomed)
    place = (crumbs(page), selected(page), page.address())
    before = int(page.data("totalNs"))

    # the busy program goes on, so a later answer holds more CPU time
    page.wait(lambda: int(page.data("totalNs")) > before)
    assert (crumbs(page), selected(page), page.address()) == place
    assert page.find("#search").get_attribute("value") == "a_fifth"
    assert page.text("#hits")

    # stopped, it stays as it is
    page.find("#live").click()
    page.wait(lambda: page.find("#live").get_attribute("aria-pressed") == "false")
    answers = page.data("answers")
    time.sleep(6)
    assert page.data("answers") == answers


def test_filters_by_service_from_the_completion(page: Any, demo: Any) -> None:
    page.open()
    field = page.find("#new-filter")
    field.send_keys("servi")
    page.wait(lambda: "service" in page.find("#options").text)
    field.send_keys(Keys.ENTER)
    page.wait(lambda: field.get_attribute("value") == "service=")
    field.send_keys(demo.service[:-1])
    page.wait(lambda: demo.service in page.find("#options").text)
    field.send_keys(Keys.TAB)  # completes; Enter would take what is typed
    page.wait(lambda: page.text("#answer").startswith(demo.service + " used"))
    page.press(Keys.ARROW_DOWN)
    page.wait(lambda: selected(page) == demo.service)
    page.press(Keys.ARROW_RIGHT)
    assert selected(page) == demo.service, "no other service is shown"

    # the filter is in the link, and taking it away shows everything again
    assert "service" in asked(page)["query"][0]
    page.find(".chip button:last-child").click()
    page.wait(lambda: "query" not in asked(page))
    page.wait(lambda: not page.text("#answer").startswith(demo.service))


def test_legend_dims_all_other_kinds(page: Any, demo: Any) -> None:
    page.open(demo.view())
    kind = page.find("#legend button")
    name = kind.get_attribute("data-kind")
    everything = functions(page)
    kind.click()
    page.wait(lambda: page.find("#legend").find_elements("css selector", "[aria-pressed=true]"))
    pressed = page.find("#legend [aria-pressed=true]")
    assert pressed.get_attribute("data-kind") == name
    assert set(functions(page)) <= set(everything)
    assert " of " in page.text("#function-count")
    pressed.click()
    page.wait(lambda: set(functions(page)) == set(everything))


def test_the_range_can_be_chosen_by_preset_keys_and_brush(page: Any) -> None:
    page.open()
    page.find("[data-preset='1h']").click()
    page.wait(lambda: "from=now-1h" in page.address())
    page.next_answer()

    plot = page.find(".tl-plot")
    width = plot.size["width"]
    actions = ActionChains(page.driver)
    actions.move_to_element_with_offset(plot, int(width * 0.3), 0).click_and_hold()
    actions.move_by_offset(int(width * 0.15), 0).release().perform()
    page.wait(lambda: "until=2" in page.address())
    page.wait(lambda: page.find("#live").get_attribute("aria-pressed") == "false")

    brushed = asked(page)
    page.find("#earlier").click()
    page.wait(lambda: asked(page)["until"] == brushed["from"])
    page.find("body").send_keys("]")
    page.wait(lambda: asked(page) == brushed)


def test_dark_and_light(page: Any, demo: Any) -> None:
    def corner() -> list[int]:
        return list(
            page.script(
                """const canvas = document.querySelector("#flame canvas");
                const { data } = canvas.getContext("2d").getImageData(1, canvas.height - 2, 1, 1);
                return [...data];"""
            )
        )

    page.open(demo.view("&theme=light"))
    light = corner()
    assert min(light[:3]) > 200
    page.find("#theme").click()
    page.wait(lambda: page.script("return document.documentElement.dataset.theme") == "dark")
    page.wait(lambda: max(corner()[:3]) < 80)
    # the choice outlives the page
    page.open(demo.view())
    page.wait(lambda: max(corner()[:3]) < 80)
    page.find("#theme").click()
    page.wait(lambda: corner() == light)


@pytest.mark.timeout(2400)
def test_functions_have_the_shares_that_they_were_written_with(page: Any, demo: Any) -> None:
    # The last of this module, so that most of the samples are there already. A share of 50 % has a
    # standard error of 0.5 / sqrt(samples): four of them are 3 points after 45 s of CPU time at the
    # full rate. With what the demo starts with it would be one and a half. Where the governor has
    # lowered the rate, samples weigh differently: they are taken for as few as there may be.
    limit = time.monotonic() + 1500
    page.open(demo.view())
    while cpu_seconds(page) < (45 if has_full_rate(page) else 60):
        assert time.monotonic() < limit, "the program got too little CPU time"
        time.sleep(1)
        page.open(demo.view())
    at_least = cpu_seconds(page) * (RATE_HZ if has_full_rate(page) else LOWEST_HZ)
    listed = functions(page)
    work = sum(listed[name][0] for name in SHARES)
    for name, share in SHARES.items():
        bound = 4.03 * math.sqrt(share * (1 - share) / at_least)
        assert listed[name][0] / work == pytest.approx(share, abs=bound), (at_least, listed)
    assert listed["serve_requests"][1] == pytest.approx(work, abs=3)
