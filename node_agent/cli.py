"""The command line of the agent. A command's module is imported only when it is run: the shipper
must not carry the sampler's memory, nor the other way round."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from node_agent import VERSION
from node_agent.errors import EXIT_IMPOSSIBLE, AgentError

_EPILOG = """exit codes: 0 fine, 1 failed (status: not running; detach: something is left),
2 wrong usage or configuration, 3 profiling is impossible here (`flamefleet-agent check` says why),
4 the breaker keeps the agent detached (`flamefleet-agent status` says why)"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors are one message with a remedy."""
    arguments = _parser().parse_args(argv)
    try:
        command = import_module(f"node_agent.commands.{arguments.command}")
        code: int = command.execute(arguments)
        sys.stdout.flush()
        return code
    except AgentError as error:
        print(_render(arguments.command, error), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output went away; keep the exit silent
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _render(command: str, error: AgentError) -> str:
    lines = [f"flamefleet-agent {command}: {line}" for line in str(error).splitlines()]
    if error.remedy:
        lines += [f"  {line}" for line in error.remedy.splitlines()]
    if error.exit_code == EXIT_IMPOSSIBLE:
        lines.append("  `flamefleet-agent check` looks at everything that profiling needs.")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flamefleet-agent",
        description="Profiles this host for Flamefleet.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"flamefleet-agent {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

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


if __name__ == "__main__":
    sys.exit(main())
