"""The page's files as served: headers, caching, and nothing that the policy would block."""

import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from aggregator.answers.headers import add_headers
from aggregator.dashboard.views import load_assets, setup

Client = TestClient[Any, Any]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    app = web.Application()
    app.on_response_prepare.append(add_headers)
    setup(app)
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_the_page_comes_with_a_strict_policy(client: Client) -> None:
    answer = await client.get("/")
    assert answer.status == 200
    assert answer.content_type == "text/html"
    policy = answer.headers["Content-Security-Policy"]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == "'self'"
    assert directives["style-src"] == "'self'"
    assert directives["frame-ancestors"] == "'none'"
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_every_file_is_served_with_its_type_and_policy(client: Client) -> None:
    types = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
    for name in load_assets():
        answer = await client.get(f"/static/{name}")
        assert answer.status == 200, name
        assert "Content-Security-Policy" in answer.headers, name
        suffix = name[name.rfind(".") :]
        assert answer.content_type == types.get(suffix, "image/svg+xml"), name


async def test_an_unchanged_file_is_not_sent_again(client: Client) -> None:
    first = await client.get("/static/js/main.js")
    again = await client.get("/static/js/main.js", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status == 304
    assert await again.read() == b""
    other = await client.get("/static/js/main.js", headers={"If-None-Match": '"another"'})
    assert other.status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/static/no-such.js",
        "/static/../views.py",
        "/static/%2e%2e/views.py",
        "/static/js/",
        "/static/",
    ],
)
async def test_nothing_else_is_served(client: Client, path: str) -> None:
    answer = await client.get(path)
    assert answer.status == 404


class Document(HTMLParser):
    """Collects what the policy would block, and what the page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.blocked: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "style" or (tag == "script" and "src" not in found):
            self.blocked.append(tag)
        self.blocked += [name for name in found if name == "style" or name.startswith("on")]
        if "id" in found:
            self.ids.append(str(found["id"]))
        reference = found.get("src") or (found.get("href") if tag == "link" else None)
        if reference:
            self.references.append(reference)


def test_the_page_holds_nothing_inline_and_refers_only_to_its_own_files() -> None:
    assets = load_assets()
    document = Document()
    document.feed(assets["index.html"].content.decode())
    assert document.blocked == []
    assert len(document.ids) == len(set(document.ids))
    assert document.references
    for reference in document.references:
        assert reference.removeprefix("static/") in assets, reference


def test_all_modules_are_fetched_at_once() -> None:
    assets = load_assets()
    page = assets["index.html"].content.decode()
    preloaded = set(re.findall(r'<link rel="modulepreload" href="static/(.+?)">', page))
    scripts = {name for name in assets if name.endswith(".js")}
    assert preloaded == scripts - {"js/theme.js", "js/main.js"}


def test_scripts_import_only_files_that_exist_and_all_are_used() -> None:
    assets = load_assets()
    scripts = {name: asset.content.decode() for name, asset in assets.items() if name[-3:] == ".js"}
    imported = {"js/main.js", "js/theme.js"}
    for name, source in scripts.items():
        for target in re.findall(r'from "(.+?)"', source):
            parts = name.split("/")[:-1]
            for part in target.split("/"):
                if part == "..":
                    parts.pop()
                elif part != ".":
                    parts.append(part)
            assert "/".join(parts) in scripts, f"{name} imports {target}"
            imported.add("/".join(parts))
    assert imported == set(scripts)


def test_colours_are_named_in_the_tokens_only() -> None:
    for name, asset in load_assets().items():
        if name.endswith((".css", ".js")) and name != "css/tokens.css":
            colours = re.findall(r"#[0-9a-fA-F]{6}\b|#[0-9a-fA-F]{3}\b", asset.content.decode())
            assert colours == [], name
