"""A real Chromium on the running demo: `flamefleet up` with a busy C program to look at."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from aggregator.dashboard.views import setup

CHROMIUM = "/usr/bin/chromium"
CHROMEDRIVER = "/usr/bin/chromedriver"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
WAIT_S = 300.0
BUSY = "flamefleet-busy"
# Every function of its stacks, which get their names together: it is one file.
NAMED = ("_start", "run", "serve_requests", "half_of_it", "three_tenths", "a_fifth")


@pytest.fixture(scope="package")
def busy_program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running program of a known profile; the name of its executable."""
    program = tmp_path_factory.mktemp("busy") / BUSY
    source = Path(__file__).with_name("busy.c")
    # -O0: from -O1 on, gcc leaves the frame pointer out of leaf functions whatever it is told
    flags = ["-O0", "-g", "-static", "-nostdlib", "-fno-omit-frame-pointer"]
    subprocess.run(["cc", *flags, "-o", str(program), str(source)], check=True)
    process = subprocess.Popen([str(program)])
    yield BUSY
    process.kill()
    process.wait()


@dataclass(frozen=True)
class Demo:
    """A running `flamefleet up`: its page, and the service that the busy program belongs to."""

    url: str
    service: str

    def following(self, more: str = "") -> str:
        """The query string of a view of this service that follows now; `more` begins with &."""
        return "?query=" + quote(f'{{service="{self.service}"}}') + more

    def view(self, more: str = "") -> str:
        """The same of a view that keeps its first answer: nothing changes while it is looked at."""
        return self.following(f"&live=0{more}")


@pytest.fixture(scope="package")
def demo(busy_program: str, find_port: Callable[[], int]) -> Iterator[Demo]:
    """The demo, ready: its page has samples of the busy program by name."""
    folder = Path(tempfile.mkdtemp(prefix="ff-demo-"))
    folder.chmod(0o711)
    said = folder / "said.txt"
    command = [str(Path(sys.executable).with_name("flamefleet")), "up", "--json"]
    with said.open("w") as stream:
        process = subprocess.Popen(
            [*command, "--port", str(find_port()), "--data-dir", str(folder / "data")],
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            cwd="/",
            env={key: value for key, value in os.environ.items() if "FLAMEFLEET" not in key},
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"no ready line:\n{said.read_text()}"
        url = str(json.loads(line)["url"])
        yield Demo(url, _service_of(url, NAMED))
    finally:
        process.send_signal(signal.SIGINT)
        status = process.wait(WAIT_S)
        assert process.stdout is not None
        process.stdout.close()
        words = said.read_text()
        shutil.rmtree(folder, ignore_errors=True)
        assert status == 0, words


def _service_of(url: str, functions: tuple[str, ...]) -> str:
    """Wait until one service has all these functions by name, with a second of CPU time each; the
    service."""
    limit = time.monotonic() + 900
    while time.monotonic() < limit:
        seen: dict[str, Counter[str]] = defaultdict(Counter)
        with urlopen(f"{url}api/v1/flamegraph?from=now-5m&until=now&format=folded") as answer:
            for line in answer.read().decode().splitlines():
                stack, _, cpu_ns = line.rpartition(" ")
                service, *frames = stack.split(";")
                seen[service].update({name: int(cpu_ns) for name in functions if name in frames})
        for service, cpu_ns_of in seen.items():
            if all(cpu_ns_of[name] >= 10**9 for name in functions):
                return service
        time.sleep(1)
    raise AssertionError(f"{functions} never appeared")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """One headless Chromium for a module of tests, with an empty profile."""
    for program in (CHROMIUM, CHROMEDRIVER):
        if not Path(program).exists():
            # `make test` installs it, and turns a skip into a failure.
            pytest.skip(f"{program} is missing: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    driver.set_script_timeout(WAIT_S)
    yield driver
    driver.quit()


class Page:
    """The page as a test drives it. Reading goes by what people and screen readers get."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver = driver
        self.url = url

    def open(self, query: str = "", ready: bool = True) -> "Page":
        """Go to the page; with `ready` also wait for the first drawn answer."""
        self.driver.get(self.url + query)
        if ready:
            self.wait(lambda: self.data("ready") == "true")
        return self

    def data(self, name: str) -> str:
        """One of the attributes data-state, -ready, -frames, -totalNs, -answers of the page."""
        return str(self.script(f"return document.documentElement.dataset.{name} ?? ''"))

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """The text of an element, also of one that only screen readers get."""
        return str(self.script("return document.querySelector(arguments[0]).textContent", selector))

    def address(self) -> str:
        """The page's own idea of its URL: the driver's comes a little later."""
        return str(self.script("return location.href"))

    def press(self, *keys: str) -> None:
        """Type keys to the flamegraph."""
        self.find("#flame").send_keys(*keys)

    def script(self, source: str, *arguments: object) -> Any:
        return self.driver.execute_script(source, *arguments)

    def promise(self, source: str) -> Any:
        """The result of an async function body, for example one that imports a module."""
        result = self.driver.execute_async_script(
            f"""const done = arguments[arguments.length - 1];
            (async () => {{ {source} }})().then(
                (value) => done({{ value }}), (error) => done({{ error: String(error) }}));"""
        )
        assert "error" not in result, result["error"]
        return result["value"]

    def wait(self, holds: Callable[[], object]) -> None:
        """Return once `holds()`; fail after five minutes. What the page has just replaced does not
        hold yet."""
        limit = time.monotonic() + WAIT_S
        while not self._is_so(holds):
            assert time.monotonic() < limit, f"waited in vain; state: {self.data('state')}"
            time.sleep(0.05)

    @staticmethod
    def _is_so(holds: Callable[[], object]) -> bool:
        try:
            return bool(holds())
        except StaleElementReferenceException:
            return False

    def next_answer(self) -> None:
        """Wait until another answer has been drawn."""
        before = self.data("answers")
        self.wait(lambda: self.data("answers") != before)

    def console(self) -> list[str]:
        """Errors and warnings of the browser's console since the last call."""
        lines = self.driver.get_log("browser")  # type: ignore[no-untyped-call]  # selenium has no types for it
        return [
            line["message"]
            for line in lines
            if line["level"] in ("SEVERE", "WARNING")
            and "willReadFrequently" not in line["message"]  # the tests read the canvas
        ]


@pytest.fixture
def page_at(chromium: webdriver.Chrome) -> Iterator[Callable[[str], Page]]:
    """page_at(url): a page in a window of 1440 x 900, with nothing stored."""

    def make(url: str) -> Page:
        chromium.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": 1440, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        chromium.execute_cdp_cmd(
            "Storage.clearDataForOrigin", {"origin": url.rstrip("/"), "storageTypes": "all"}
        )
        chromium.get_log("browser")  # type: ignore[no-untyped-call]  # selenium has no types for it
        return Page(chromium, url)

    yield make
    chromium.get("about:blank")


@pytest.fixture
def page(page_at: Callable[[str], Page], demo: Demo) -> Iterator[Page]:
    """The demo's page. A test that leaves errors in the console has failed."""
    page = page_at(demo.url)
    yield page
    assert page.console() == []


@pytest.fixture
async def run(page_at: Callable[[str], Any]) -> AsyncIterator[Callable[[str], Awaitable[Any]]]:
    """run(body): the result of an async function's body in a page of this origin."""
    app = web.Application()
    setup(app)
    async with TestServer(app) as server:
        page = page_at(str(server.make_url("/")))
        await asyncio.to_thread(page.driver.get, page.url + "static/icon.svg")
        yield lambda body: asyncio.to_thread(page.promise, body)


@pytest.fixture
def centre_settings() -> str:
    """Lines of the aggregator's configuration besides its addresses."""
    return ""


@pytest.fixture
def aggregator_url(
    postgres_url: str,
    valkey_url: str,
    find_port: Callable[[], int],
    tmp_path: Path,
    centre_settings: str,
) -> Iterator[str]:
    """A running aggregator that no host has ever reported to."""
    port = find_port()
    config = tmp_path / "centre.toml"
    config.write_text(
        f"database_url = {json.dumps(postgres_url)}\nbroker_url = {json.dumps(valkey_url)}\n"
        f'host = "127.0.0.1"\nport = {port}\n{centre_settings}'
    )
    command = [str(Path(sys.executable).with_name("flamefleet")), "serve", "--config", str(config)]
    process = subprocess.Popen(command, cwd="/")
    limit = time.monotonic() + WAIT_S
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert process.poll() is None and time.monotonic() < limit, "the aggregator did not start"
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}/"
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_S) == 0
