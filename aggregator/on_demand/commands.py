"""`flamefleet profile NODE`: ask a node for a profile, follow it, show what it found.

Exit status: 0 done, 1 the centre or the network failed, 2 usage, 3 refused, 4 expired, 5 shortened
(what there is of it is shown), 130 ended by Ctrl-C.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aggregator.client import Centre, add_centre_address, read_centre
from aggregator.errors import ConfigError
from wire.terminal import printable_line

EXIT_DONE, EXIT_REFUSED, EXIT_EXPIRED, EXIT_SHORTENED, EXIT_INTERRUPTED = 0, 3, 4, 5, 130
EXITS = {
    "done": EXIT_DONE,
    "refused": EXIT_REFUSED,
    "expired": EXIT_EXPIRED,
    "shortened": EXIT_SHORTENED,
}
REFUSALS = (409, 422, 429)  # answers that mean: not now, not this
FORMATS = {".folded": "folded", ".txt": "folded", ".pb.gz": "pprof"}
DEFAULT_TOP = 10


def add_profile(commands: Any) -> None:
    """Add `profile` to the commands."""
    parser = commands.add_parser(
        "profile",
        help="ask a node for a profile at a higher rate, and follow it",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("node", metavar="NODE", help="the node's name")
    parser.add_argument("--seconds", type=int, default=60, help="10 to 600; default: %(default)s")
    parser.add_argument("--rate", type=int, default=199, help="in Hz; default: %(default)s")
    parser.add_argument("--collector", default="cpu", help="default: %(default)s")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="write it: .folded, .txt or .pb.gz (pprof)",
    )
    parser.add_argument("--open", action="store_true", help="open the flamegraph in a browser")
    parser.add_argument(
        "--top", type=int, default=DEFAULT_TOP, help="functions to print; default: %(default)s"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON in the end")
    add_centre_address(parser)
    parser.add_argument(
        "--read-token-file", type=Path, metavar="FILE", help="where the centre has a read token"
    )
    parser.set_defaults(run=_run_profile)


def _run_profile(options: argparse.Namespace) -> int:
    from aggregator.client import CentreError
    from aggregator.on_demand.follow import Follower

    form = _format_of(options.output)
    centre = read_centre(options, "a profile")
    follower = Follower(centre, sys.stderr)
    path = f"/api/v1/nodes/{quote(options.node, safe='')}/profiles"
    body = {"seconds": options.seconds, "rate_hz": options.rate, "collector": options.collector}
    try:
        asked = centre.ask_json("POST", path, body=body)
    except CentreError as error:
        if error.answered not in REFUSALS:
            raise
        print(error.for_terminal(), file=sys.stderr)
        return EXIT_REFUSED
    known = follower.follow(asked)
    if known["flamegraph"] is not None:
        _show(options, centre, known, form)
    elif options.json:
        print(json.dumps(known))
    return EXIT_INTERRUPTED if follower.was_interrupted else EXITS[known["state"]]


def _show(options: argparse.Namespace, centre: Centre, known: dict[str, Any], form: str) -> None:
    from aggregator.on_demand.follow import named_flamegraph, top_functions

    span = {name: known["flamegraph"][name] for name in ("from", "until", "query")}
    page = f"{centre.url.rstrip('/')}{known['flamegraph']['page']}"
    answer = named_flamegraph(centre, span)
    top = top_functions(answer, options.top)
    if options.json:
        functions = [{"function": name, "self_ns": self_ns} for name, self_ns in top]
        print(json.dumps({**known, "page": page, "top": functions}))
    else:
        print(printable_line(f"flamegraph: {page}"))
        for name, self_ns in top:
            share = 100 * self_ns / max(answer["total_ns"], 1)
            print(printable_line(f"{share:6.1f} % {self_ns / 1e9:8.2f} s  {name}"))
    if options.output is not None:
        data = centre.ask("GET", "/api/v1/flamegraph", {**span, "format": form})
        try:
            options.output.write_bytes(data)
        except OSError as error:
            raise ConfigError(f"cannot write {options.output}: {error.strerror}") from error
    if options.open:
        import webbrowser

        webbrowser.open(page)


def _format_of(output: Path | None) -> str:
    """The API's name of the format that a file's name asks for. Raises ConfigError."""
    if output is None:
        return ""
    for ending, form in FORMATS.items():
        if output.name.endswith(ending):
            return form
    raise ConfigError(f"{output} says no format", remedy=f"end its name in {', '.join(FORMATS)}")
