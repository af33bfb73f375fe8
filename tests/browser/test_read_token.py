"""The page of an aggregator that wants a read token."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def centre_settings(tmp_path: Path) -> str:
    path = tmp_path / "read-token"
    path.write_text(TOKEN)
    return f"read_token_file = '{path}'\n"


def test_the_page_works_once_the_browser_has_the_token(
    page_at: Callable[[str], Any], aggregator_url: str
) -> None:
    page = page_at(aggregator_url)
    page.open(ready=False)
    status = "return performance.getEntriesByType('navigation')[0].responseStatus"
    assert page.script(status) == 401
    assert page.script("return document.querySelector('#flame')") is None

    page.driver.get(aggregator_url.replace("//", f"//me:{TOKEN}@"))  # what its prompt leads to
    page.open(ready=False)
    page.wait(lambda: page.data("state") == "first-run")  # its questions were answered too
