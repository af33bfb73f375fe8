"""What `flamefleet profile` says and returns, with a centre of canned answers on the loopback."""

import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from aggregator.cli import main
from aggregator.client import Centre, CentreError
from aggregator.on_demand.follow import Follower, progress_line, top_functions

PROFILE: dict[str, Any] = {
    "id": 7,
    "node": "web-1",
    "url": "/api/v1/nodes/web-1/profiles/7",
    "state": "waiting",
    "reason": "the node is told with the answer to its next batch",
    "asked_rate_hz": 199,
    "effective_rate_hz": None,
    "begun_at": None,
    "seconds_left": None,
    "samples": 0,
    "lost_samples": 0,
    "flamegraph": None,
}
RUNNING = {
    **PROFILE,
    "state": "running",
    "reason": "",
    "begun_at": "2026-11-22T12:00:10Z",
    "effective_rate_hz": 198.7,
    "samples": 1234,
    "seconds_left": 29.6,
}
SPAN = {"from": "2026-11-22T12:00:10Z", "until": "2026-11-22T12:01:10Z", "query": "{}"}
DONE = {
    **RUNNING,
    "state": "done",
    "reason": "ended after 60 s",
    "seconds_left": None,
    "flamegraph": {**SPAN, "url": "/api/v1/flamegraph?x", "page": "/?from=x"},
}
FLAMEGRAPH = {
    "total_ns": 4_000_000_000,
    "coverage": {"undefined_stacks": 0},
    "strings": ["", "nginx", "run", "libc.so.6", "memcpy", "libc.so.6+0x10", "[unnamed]", "/a.py"],
    "kinds": ["process", "native", "python", "unknown"],
    "functions": {
        "name": [1, 4, 5, 6, 2, 2],
        "module": [0, 3, 3, 3, 0, 0],
        "file": [0, 0, 0, 0, 7, 0],
        "kind": [0, 1, 3, 3, 2, 2],
        "group": [-1, -1, 3, -1, -1, -1],
        "members": [0, 0, 0, 1, 0, 0],
        "self": [9, 3_000_000_000, 10**9, 10**9, 5 * 10**8, 2 * 10**8],
    },
}


@pytest.fixture
def centre() -> Iterator[Callable[..., str]]:
    """centre(answers): the URL of a server that gives (status, JSON) by "METHOD path", a list one
    after the other, its last one again and again. What was asked is in `centre.asked`."""
    servers = []
    asked: list[tuple[str, Any]] = []
    tokens: dict[str, str] = {}

    def start(answers: dict[str, list[tuple[int, Any]]]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                place = f"{self.command} {self.path.partition('?')[0]}"
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked.append((place, json.loads(body) if body else None))
                tokens[self.command] = self.headers.get("Authorization", "")
                left = answers[place]
                status, value = left[0] if len(left) == 1 else left.pop(0)
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, *_: Any) -> None:
                """Nobody reads it."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    start.tokens = tokens  # type: ignore[attr-defined]  # a function with an attribute
    start.asked = asked  # type: ignore[attr-defined]  # a function with an attribute
    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


PLACE = "/api/v1/nodes/web-1/profiles"


def run(url: str, *flags: str) -> int:
    return main(["profile", "web-1", "--url", url, "--token", "ffo_x", *flags])


def test_it_is_followed_to_its_flamegraph(
    centre: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = centre(
        {
            f"POST {PLACE}": [(202, PROFILE)],
            f"GET {PLACE}/7": [(200, RUNNING), (200, DONE)],
            "GET /api/v1/flamegraph": [(200, FLAMEGRAPH)],
        }
    )
    output, read_token = tmp_path / "out.folded", tmp_path / "read-token"
    read_token.write_text("of-all-readers\n")
    flags = ["--seconds", "60", "--rate", "99", "--read-token-file", str(read_token)]

    assert run(url, *flags, "-o", str(output)) == 0

    out, words = capsys.readouterr()
    place, body = centre.asked[0]  # type: ignore[attr-defined]  # see the fixture
    assert (place, body) == (
        f"POST {PLACE}",
        {"seconds": 60, "rate_hz": 99, "collector": "cpu"},
    )
    assert centre.tokens == {"POST": "Bearer ffo_x", "GET": "Bearer of-all-readers"}  # type: ignore[attr-defined]  # see the fixture
    assert out.splitlines() == [
        f"flamegraph: {url}/?from=x",
        "  75.0 %     3.00 s  memcpy (libc.so.6)",
        "  25.0 %     1.00 s  1 without a name (libc.so.6)",
        "  12.5 %     0.50 s  run (/a.py)",
        "   5.0 %     0.20 s  run",
    ]
    assert words.splitlines() == [
        "profile 7 of web-1: waiting, the node is told with the answer to its next batch",
        "profile 7 of web-1: running, 198.7 Hz, 1234 samples, 30 s left",
        "profile 7 of web-1: done, ended after 60 s, 198.7 Hz, 1234 samples",
    ]
    assert json.loads(output.read_text())["total_ns"] == 4_000_000_000


@pytest.mark.parametrize(
    ("state", "status"), [("refused", 3), ("expired", 4), ("shortened", 5), ("done", 0)]
)
def test_exit_statuses(
    centre: Callable[..., str], capsys: pytest.CaptureFixture[str], state: str, status: int
) -> None:
    known = {**PROFILE, "state": state, "reason": "because"}
    url = centre({f"POST {PLACE}": [(202, known)]})

    assert run(url, "--json") == status

    out, words = capsys.readouterr()
    assert json.loads(out) == known
    assert f"{state}, because" in words


@pytest.mark.parametrize(
    ("answer", "status"), [(409, 3), (422, 3), (429, 3), (404, 1), (401, 1), (503, 1)]
)
def test_what_the_centre_refuses_is_said_in_its_words(
    centre: Callable[..., str], capsys: pytest.CaptureFixture[str], answer: int, status: int
) -> None:
    error = {"code": "x", "message": "web-1 is busy", "remedy": "wait for it"}
    url = centre({f"POST {PLACE}": [(answer, {"error": error})]})

    assert run(url) == status

    assert "flamefleet: web-1 is busy\n  what to do: wait for it" in capsys.readouterr().err


def test_ctrl_c_cancels_and_waits_for_the_end(centre: Callable[..., str]) -> None:
    cancelled = {**DONE, "state": "shortened", "reason": "cancelled after 20 s"}
    url = centre({f"GET {PLACE}/7": [(200, cancelled)], f"DELETE {PLACE}/7": [(200, RUNNING)]})

    class Stream(io.StringIO):
        """Ctrl-C comes with the first line."""

        def flush(self) -> None:
            if self.getvalue().count("\n") == 1 and not centre.asked:  # type: ignore[attr-defined]  # see the fixture
                raise KeyboardInterrupt

    follower = Follower(Centre(url, "ffo_x"), Stream(), 0.05)

    assert follower.follow(RUNNING) == cancelled
    assert follower.was_interrupted
    assert [place for place, _ in centre.asked] == [f"DELETE {PLACE}/7", f"GET {PLACE}/7"]  # type: ignore[attr-defined]  # see the fixture


def test_a_centre_that_is_away_for_a_moment_is_waited_for(centre: Callable[..., str]) -> None:
    url = centre({f"GET {PLACE}/7": [(503, {}), (200, DONE)]})
    said = io.StringIO()

    assert Follower(Centre(url), said, 0.05).follow(RUNNING) == DONE

    assert "the centre answered 503; trying again" in said.getvalue()


def test_a_centre_that_knows_it_no_more_is_not(centre: Callable[..., str]) -> None:
    url = centre({f"GET {PLACE}/7": [(404, {})]})
    with pytest.raises(CentreError, match="answered 404"):
        Follower(Centre(url), io.StringIO(), 0.05).follow(RUNNING)


def test_on_a_terminal_it_is_one_line(centre: Callable[..., str]) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    url = centre({f"GET {PLACE}/7": [(200, {**RUNNING, "samples": 5}), (200, DONE)]})
    said = Terminal()
    Follower(Centre(url), said, 0.05).follow(RUNNING)

    assert said.getvalue().count("\n") == 1
    assert said.getvalue().count("\r") == 3


def test_lines() -> None:
    assert progress_line({**RUNNING, "lost_samples": 3}) == (
        "profile 7 of web-1: running, 198.7 Hz, 1234 samples, 3 lost, 30 s left"
    )
    first = {**RUNNING, "effective_rate_hz": None, "samples": 0, "seconds_left": 0.0}
    assert progress_line(first) == "profile 7 of web-1: running, 199 Hz, 0 samples, 0 s left"


def test_top_functions_are_those_of_the_whole_graph_by_name_file_and_module() -> None:
    assert top_functions(FLAMEGRAPH, 1) == [("memcpy (libc.so.6)", 3_000_000_000)]
    assert [name for name, _ in top_functions(FLAMEGRAPH, 9)] == [
        *("memcpy (libc.so.6)", "1 without a name (libc.so.6)", "run (/a.py)", "run"),
    ]
    assert top_functions(FLAMEGRAPH, 0) == []


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["-o", "out.svg"], "out.svg says no format"),
        (["--token-file", "/no/such/file"], "cannot read /no/such/file"),
    ],
)
def test_wrong_flags(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    words: str,
) -> None:
    monkeypatch.delenv("FLAMEFLEET_OPERATOR_TOKEN", raising=False)
    assert main(["profile", "web-1", *flags]) == 2
    assert words in capsys.readouterr().err
