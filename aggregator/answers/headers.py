"""Headers that no answer lacks, whatever it is, errors included."""

from aiohttp import web

_NO_FRAMES = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
# Nothing but the page is ever to be drawn: an answer that a browser opens loads and runs nothing.
DEFAULT_POLICY = f"default-src 'none'; {_NO_FRAMES}"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    f"connect-src 'self'; {_NO_FRAMES}"
)
_HEADERS = {
    "Content-Security-Policy": DEFAULT_POLICY,
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """For `on_response_prepare`: what the answer does not say itself."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
