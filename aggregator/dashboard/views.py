"""The dashboard: one page and its static files, served from memory.

The files are part of the package and are read once, at start: no path of a request ever reaches the
file system. The content security policy is strict; nothing comes from elsewhere.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from aggregator.answers.headers import PAGE_POLICY

CONTENT_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class Asset:
    """One static file. `etag` is a hash of its content, without quotes."""

    content: bytes
    content_type: str
    etag: str


def load_assets() -> dict[str, Asset]:
    """All static files by their path below `static/`, for example `js/main.js`."""
    root = Path(__file__).parent / "static"
    return {
        path.relative_to(root).as_posix(): _load(path)
        for path in sorted(root.rglob("*"))
        if path.suffix in CONTENT_TYPES
    }


def _load(path: Path) -> Asset:
    content = path.read_bytes()
    etag = hashlib.blake2b(content, digest_size=12).hexdigest()
    return Asset(content, CONTENT_TYPES[path.suffix], etag)


def setup(app: web.Application) -> None:
    """Adds `GET /` and `GET /static/…` to the application."""
    assets = load_assets()

    async def page(request: web.Request) -> web.Response:
        return _answer(request, assets["index.html"])

    async def static(request: web.Request) -> web.Response:
        asset = assets.get(request.match_info["path"])
        if asset is None:
            raise web.HTTPNotFound
        return _answer(request, asset)

    app.router.add_get("/", page)
    app.router.add_get("/static/{path:.+}", static)


def _answer(request: web.Request, asset: Asset) -> web.Response:
    # no-cache: the browser asks each time, so a new version of the server is never mixed with old
    # scripts; the answer is then an empty 304.
    headers = {
        "Content-Security-Policy": PAGE_POLICY,
        "Cache-Control": "no-cache",
        "ETag": f'"{asset.etag}"',
    }
    wanted = request.if_none_match or ()
    if any(tag.value in (asset.etag, "*") for tag in wanted):
        return web.Response(status=304, headers=headers)
    return web.Response(
        body=asset.content, content_type=asset.content_type, charset="utf-8", headers=headers
    )
