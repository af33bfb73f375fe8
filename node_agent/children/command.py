"""Start the short-lived children that parse foreign files, on an interpreter without privileges."""

import errno
import os
import signal
import sys
from contextlib import suppress
from functools import cache


@cache
def plain_interpreter() -> str:
    """An interpreter without file capabilities: our own, or the system's of the same version.

    The sampler may run on a private copy that carries capabilities; a child must not get them.
    """
    if not _has_file_capabilities(sys.executable):
        return sys.executable
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for folder in ("/usr/bin", "/usr/local/bin"):
        candidate = f"{folder}/{version}"
        if os.access(candidate, os.X_OK) and not _has_file_capabilities(candidate):
            return candidate
    return sys.executable  # the child drops what it gets before it reads anything


def child_command(module: str, arguments: list[str]) -> list[str]:
    """Command that runs `main(arguments)` of `module` in isolated mode, with our search path."""
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        f"from {module} import main; sys.exit(main(sys.argv[1:]))"
    )
    return [plain_interpreter(), "-I", "-S", "-c", code, *arguments]


def end_child(pid: int) -> None:
    """Kill a child and take it up. One that is another user's by now ends with us, or by its own
    alarm (see confine.py)."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _has_file_capabilities(path: str) -> bool:
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError as error:
        return error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.ENOENT)
