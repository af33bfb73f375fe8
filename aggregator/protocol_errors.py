"""What aiohttp itself refuses (no HTTP, too long a line) in the form of every other error."""

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler
from prometheus_client import Counter

# A selector of 8,192 characters with what a URL escapes: 3,600 CJK characters, or ASCII thrice.
MAX_LINE_BYTES = 32_768
_MOST_WORDS = 200


class PlainWords(RequestHandler):
    """aiohttp's protocol of a connection, whose own refusals are JSON and counted in `refused`."""

    __slots__ = ("_refused",)

    def __init__(self, server: web.Server, refused: Counter, **settings: object) -> None:
        super().__init__(server, max_line_size=MAX_LINE_BYTES, **settings)  # type: ignore[arg-type]  # aiohttp's own
        self._refused = refused

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to a request that never reaches the application; it closes the connection."""
        if status >= 500:
            super().handle_error(request, status, exc, message)  # which logs it
            code, words, remedy = "internal", "the aggregator failed", "see the aggregator's log"
        elif request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        elif isinstance(exc, LineTooLong):
            code = "line_too_long"
            words = f"the address has more than {MAX_LINE_BYTES} bytes, or a header more than 8190"
            remedy = 'choose many hosts by what their names share: {host=~"web-.*"}'
        else:
            code = "bad_request"
            first = (message or "").strip().split("\n")[0:1]
            words = f"this is no HTTP request that can be read: {''.join(first)[:_MOST_WORDS]}"
            words, remedy = words.rstrip(": "), "send HTTP/1.1, to this port without TLS"
        self._refused.labels(code).inc()
        error = {"code": code, "message": words, "remedy": remedy}
        answer = web.json_response({"error": error}, status=status)
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.force_close()
        return answer
