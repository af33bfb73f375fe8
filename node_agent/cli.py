"""The command line of the agent. A command's module is imported only when it is run: the shipper
must not carry the sampler's memory, nor the other way round, and neither what only errors need."""

import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from types import SimpleNamespace

from node_agent.errors import EXIT_IMPOSSIBLE, AgentError
from node_agent.lean_imports import lean_imports

# What reading the command line imports, and nothing else has a use for.
_ONLY_TO_PARSE = ("node_agent.arguments", "argparse", "gettext", "locale")
_SERVICES = ("run", "ship")
_CHECK = "`flamefleet-agent check` looks at everything that profiling needs."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors are one message with a remedy."""
    with lean_imports():
        arguments = _parse(argv)
    try:
        with lean_imports():
            command = import_module(f"node_agent.commands.{arguments.command}")
        code: int = command.execute(arguments)
        sys.stdout.flush()
        return code
    except AgentError as error:
        _tell(arguments.command, error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output went away; keep the exit silent
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parse(argv: Sequence[str] | None) -> SimpleNamespace:
    """The flags; what is needed for nothing but reading them is freed, for others to use."""
    known = set(sys.modules)
    arguments: SimpleNamespace = import_module("node_agent.arguments").parse(argv)
    for name in _ONLY_TO_PARSE:
        if name not in known:
            sys.modules.pop(name, None)
    gc.collect()
    return arguments


def _tell(command: str, error: AgentError) -> None:
    """On stderr: of a service as a line of its log, of the others for people."""
    if command not in _SERVICES:
        print(_render(command, error), file=sys.stderr)
        return
    from node_agent.log import Log
    from wire.called_as import as_called
    from wire.sentences import sentences

    words = str(error).replace("\n", "; ")
    check = _CHECK if error.exit_code == EXIT_IMPOSSIBLE else ""
    remedy = as_called(sentences(error.remedy.replace("\n", " "), check))
    lines = Log(command)
    lines.error("start_failed", words, exit_code=error.exit_code, remedy=remedy)


def _render(command: str, error: AgentError) -> str:
    from wire.called_as import as_called
    from wire.terminal import printable

    lines = [f"flamefleet-agent {command}: {line}" for line in str(error).split("\n")]
    if error.remedy:
        lines += [f"  {as_called(line)}" for line in error.remedy.split("\n")]
    if error.exit_code == EXIT_IMPOSSIBLE:
        if os.geteuid() != 0:
            lines.append(as_called(f"  Or call it as root: `sudo flamefleet-agent {command}`."))
        lines.append(f"  {as_called(_CHECK)}")
    return printable("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
