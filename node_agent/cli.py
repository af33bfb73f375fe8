"""The command line of the agent. A command's module is imported only when it is run: the shipper
must not carry the sampler's memory, nor the other way round."""

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
        print(_render(arguments.command, error), file=sys.stderr)
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


def _render(command: str, error: AgentError) -> str:
    lines = [f"flamefleet-agent {command}: {line}" for line in str(error).splitlines()]
    if error.remedy:
        lines += [f"  {line}" for line in error.remedy.splitlines()]
    if error.exit_code == EXIT_IMPOSSIBLE:
        lines.append("  `flamefleet-agent check` looks at everything that profiling needs.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
