"""How stacks ended, at the end of the coverage line and in the dialog behind it."""

import os
import time
from collections.abc import Callable
from typing import Any
from urllib.request import Request, urlopen

import pytest
from selenium.webdriver.common.keys import Keys

from aggregator.access.service import create_token
from aggregator.db import create_sync_database, session_scope
from wire.codec import encode
from wire.schema import Batch, Overhead, Series

Send = Callable[..., None]


def columns(ends: dict[str, int]) -> dict[str, bytes]:
    return {reason: count.to_bytes(4, "little") for reason, count in ends.items()}


@pytest.fixture
def send(postgres_url: str, aggregator_url: str) -> Send:
    """send(samples, ends, service, python ends): a batch of host web-1 of one stack, ended now."""
    engine = create_sync_database(postgres_url)
    with session_scope(engine) as session:
        token = create_token(session, "web-1")
    engine.dispose()

    def send_batch(
        samples: int,
        ends: dict[str, int],
        service: str = "shop",
        python: dict[str, int] | None = None,
    ) -> None:
        batch = Batch(
            node="web-1",
            run=os.urandom(16),
            sequence=1,
            start_ns=time.time_ns() - 20 * 10**9,
            duration_ns=10**10,
            rate_millihertz=99_000,
            collector="cpu",
            online_cpus=64,
            series=[Series({"service": service})],
            stack_hashes=b"s" * 16,
            series_index=bytes(4),
            counts=samples.to_bytes(4, "little"),
            lost={},
            overhead=Overhead(0, 0, 0, 0, 0, 0, 0.0, 0.0),
            agent_version="0.1.0",
            stack_ends=columns(ends),
            python_ends=columns(python or {}),
        )
        headers = {"Authorization": f"Bearer {token}"}
        with urlopen(Request(f"{aggregator_url}api/v1/batches", encode(batch), headers)) as answer:
            assert answer.status == 200

    return send_batch


def table(page: Any) -> list[list[str]]:
    # In one go: the page goes on replacing the rows.
    rows: list[list[str]] = page.script(
        """return [...document.querySelectorAll("#ends-table tbody tr")].map((row) =>
          [...row.querySelectorAll("td")].slice(0, 3).map((cell) => cell.innerText));"""
    )
    return rows


def test_the_coverage_line_says_how_many_stacks_are_whole(
    page_at: Callable[[str], Any], aggregator_url: str, send: Send
) -> None:
    ends = {"complete": 9_920, "no_rows": 60, "truncated": 15, "read_fault": 5}
    send(12_000, ends)
    page = page_at(aggregator_url).open()
    whole = page.find("#whole")
    assert whole.text == "99.20 % stacks whole"
    assert whole.get_attribute("title") == "No rows 0.60 %\nTruncated 0.15 %\nRead fault 0.05 %"

    whole.click()
    dialog = page.find("#ends")
    page.wait(dialog.is_displayed)
    assert table(page) == [
        ["Whole", "99.20 %", "9,920"],
        ["No rows", "0.60 %", "60"],
        ["Truncated", "0.15 %", "15"],
        ["Read fault", "0.05 %", "5"],
    ]
    assert page.text("#ends-of").startswith("Of 10,000 samples")
    assert "2,000 more samples" in page.text("#ends-of")

    # It goes on with the page that follows now, and the keyboard closes it.
    send(80, {"complete": 0, "no_rows": 80})
    page.wait(lambda: ["No rows", "1.39 %", "140"] in table(page))
    dialog.send_keys(Keys.ESCAPE)
    page.wait(lambda: not dialog.is_displayed())
    page.wait(lambda: page.script("return document.activeElement.id") == "whole")
    assert whole.text == "98.41 % stacks whole"
    assert page.console() == []


def test_where_no_agent_tells_nothing_is_said(
    page_at: Callable[[str], Any], aggregator_url: str, send: Send
) -> None:
    send(100, {}, service="old")
    python = {"complete": 30, "off": 10}
    send(100, {"no_mapping": 100}, service="broken", python=python)
    page = page_at(aggregator_url).open('?query={service="old"}')
    assert not page.find("#whole").is_displayed()
    page.open('?query={service="broken"}')
    assert page.find("#whole").text == "0.00 % stacks whole"
    page.find("#whole").click()
    page.wait(lambda: page.find("#ends").is_displayed())
    assert table(page) == [
        ["Whole", "0.00 %", "0"],
        ["No mapping", "100.00 %", "100"],
        ["Python: whole", "75.00 %", "30"],
        ["Python: off", "25.00 %", "10"],
    ]
    assert page.console() == []
