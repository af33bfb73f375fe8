"""The flags of every command, and their help.

Imported to read the command line and forgotten (node_agent.cli): `argparse` is half a megabyte.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from node_agent import VERSION

_PROGRAM = "flamefleet-agent"
_EPILOG = """exit codes: 0 fine, 1 failed (status: not running; detach: something is left),
2 wrong usage or configuration, 3 profiling is impossible here (`flamefleet-agent check` says why),
4 the breaker keeps the agent detached (`flamefleet-agent status` says why)"""


def parse(argv: Sequence[str] | None) -> SimpleNamespace:
    """The command and its flags; None is the command line of this process.

    Ends the process, like argparse, after --help, --version and wrong usage.
    """
    return _parser().parse_args(argv, SimpleNamespace())


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """One that knows the terminal's width without `shutil`, which imports every compression: it is
    made for each flag that is declared, not only for help."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


class _Parser(argparse.ArgumentParser):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, formatter_class=_Formatter)


def _columns() -> int:
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given):
        return int(given)
    try:
        return os.get_terminal_size(sys.stdout.fileno())[0] or 80
    except (ValueError, OSError):  # no terminal, or none open
        return 80


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=_PROGRAM, description="Profiles this host for Flamefleet.", epilog=_EPILOG
    )
    parser.add_argument("--version", action="version", version=f"flamefleet-agent {VERSION}")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", prog=_PROGRAM
    )

    check = commands.add_parser("check", help="say whether this host can be profiled, and why not")
    _add_json(check)
    check.add_argument(
        "--production", action="store_true", help="go through the production checklist too"
    )
    check.add_argument("--config", type=Path, metavar="FILE", help="that of --production")
    check.add_argument("--spool-dir", metavar="DIR", help=argparse.SUPPRESS)

    record = commands.add_parser("record", help="profile this host into a file; needs no server")
    record.add_argument("--seconds", type=float, default=10, metavar="N", help="how long (10)")
    record.add_argument(
        "--rate", type=int, default=99, metavar="N", help="samples a second and CPU (99)"
    )
    record.add_argument("--pid", type=int, metavar="N", help="only this process")
    record.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="FILE.folded (collapsed stacks) or FILE.pb.gz (pprof)",
    )
    record.add_argument(
        "--no-unwind",
        dest="unwind",
        action="store_false",
        help="walk native stacks by frame pointers alone",
    )
    record.add_argument(
        "--no-python", dest="python", action="store_false", help="no frames of Python programs"
    )

    run = commands.add_parser("run", help="sample this host into the spool")
    _add_settings(run)
    run.add_argument("--preset", help="production, staging, development or debug")
    run.add_argument("--rate", dest="rate_hz", metavar="HZ", help="samples a second and CPU")
    run.add_argument("--interval", dest="interval_s", metavar="S", help="seconds a batch (10)")
    run.add_argument("--max-samples", metavar="N", help="distinct stacks held at once (100000)")
    run.add_argument("--mode", help="how the kernel program is loaded: auto, core or bcc (auto)")
    run.add_argument(
        "--reset-breaker", action="store_true", help="attach although the breaker was opened"
    )
    run.add_argument("--name", help="name of this node (the host name)")

    ship = commands.add_parser("ship", help="deliver the spool to the centre")
    _add_settings(ship)
    ship.add_argument("--url", help="the aggregator, e.g. https://flamefleet.example")
    ship.add_argument("--token-file", metavar="FILE", help="holds the enrolment token of this node")
    ship.add_argument("--ca-file", metavar="FILE", help="CA certificates to trust instead")
    ship.add_argument("--timeout", dest="timeout_s", metavar="S", help="of one answer (10)")

    status = commands.add_parser("status", help="say what the agent on this host is doing")
    _add_settings(status)
    _add_json(status)

    detach = commands.add_parser(
        "detach", help="stop the sampler and prove that nothing of it is left in the kernel"
    )
    _add_settings(detach)
    _add_json(detach)
    detach.add_argument("--list", action="store_true", help="stop nothing, only look")
    return parser


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="answer for programs")


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="TOML (/etc/flamefleet/agent.toml where it exists)",
    )
    parser.add_argument("--spool-dir", metavar="DIR", help="folder between sampler and shipper")
