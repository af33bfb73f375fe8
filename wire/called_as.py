"""How the project's commands are called here: a checkout has them in .venv/bin, a package in PATH.

Messages name commands bare, in backquotes (`flamefleet token create NODE`); whoever prints one on
this machine's terminal passes it through `as_called`.
"""

import os
import re
import sys
from pathlib import Path

from wire.terminal import printable

# In backquotes, or where a remedy is nothing but the command.
_COMMAND = re.compile(r"(?:(?<=`)|(?<=sudo )|^)(flamefleet(?:-agent)?)(?= [a-z]|`)")


def as_called(text: str) -> str:
    """`text` with its commands as they can be pasted into a shell here, and what it has of others
    escaped (`wire.terminal`)."""
    return _COMMAND.sub(lambda found: called(found[1]), printable(text))


def called(program: str, *, anywhere: bool = False) -> str:
    """`program` itself where the shell finds it, else the path of the one beside this process's.

    The path is relative below the current folder, unless it has to hold `anywhere`; where there is
    no such program either, the name remains.
    """
    started = Path(sys.argv[0])
    try:
        folder = Path.cwd()
        path = folder / started if started.name == program else Path(sys.executable, "..", program)
        path = Path(os.path.normpath(path))
        if not os.access(path, os.X_OK) or _is_found(path):
            return program
    except OSError:  # the folder is gone, or may not be entered
        return program
    # The folder of a service, or of a part of `flamefleet up`, is not a person's.
    if anywhere or folder == Path("/") or not path.is_relative_to(folder):
        return str(path)
    return str(path.relative_to(folder))


def _is_found(path: Path) -> bool:
    """Whether the shell takes `path` for its bare name: it looks into each folder in order."""
    for folder in os.get_exec_path():
        found = Path(folder, path.name)
        if os.access(found, os.X_OK):
            return found.samefile(path)
    return False
