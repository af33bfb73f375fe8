"""The page behind a reverse proxy that puts it below a path."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiohttp import ClientSession, web

PREFIX = "/tools/profiler"


@pytest.fixture
def proxy_url(aggregator_url: str) -> Iterator[str]:
    """The address of the page behind a real proxy, which knows the aggregator below PREFIX and
    answers 404 to anything else."""

    async def forward(request: web.Request) -> web.Response:
        url = aggregator_url.rstrip("/") + request.raw_path.removeprefix(PREFIX)
        async with sessions[0].request(
            request.method, url, headers=request.headers, data=await request.read()
        ) as answer:
            return web.Response(
                body=await answer.read(), status=answer.status, headers=answer.headers
            )

    loop = asyncio.new_event_loop()
    ready = threading.Event()
    ports: list[int] = []
    sessions: list[ClientSession] = []

    async def serve(stop: asyncio.Event) -> None:
        app = web.Application()
        sessions.append(ClientSession(auto_decompress=False))
        app.router.add_route("*", PREFIX + "/{path:.*}", forward)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        ports.append(runner.addresses[0][1])
        ready.set()
        await stop.wait()
        await runner.cleanup()
        await sessions[0].close()

    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(stop),))
    thread.start()
    assert ready.wait(300)
    yield f"http://127.0.0.1:{ports[0]}{PREFIX}/"
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


def test_page_questions_and_links_stay_below_the_path(
    page_at: Callable[[str], Any], proxy_url: str
) -> None:
    page = page_at(proxy_url)
    page.open(ready=False)
    page.wait(lambda: page.data("state") == "first-run")  # its questions were answered
    asked = "return performance.getEntriesByType('resource').map((e) => [e.name, e.responseStatus])"
    resources = page.script(asked)
    assert any("/api/v1/" in name for name, _ in resources)
    for name, status in resources:
        assert name.startswith(proxy_url), name
        assert status == 200, name
    link = page.promise(
        f"""const api = await import("{proxy_url}static/js/api.js");
        return [api.exportUrl({{from: "now-1h", until: "now", query: ""}}, "pprof"),
                api.below("/?from=now-1h"), document.querySelector(".brand").href];"""
    )
    assert link[0].startswith(f"{proxy_url}api/v1/flamegraph?")
    assert link[1] == f"{proxy_url}?from=now-1h"
    assert link[2] == proxy_url
