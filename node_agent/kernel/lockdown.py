"""Whether the kernel is locked down (man 7 kernel_lockdown), and the refusal where it is.

Under `confidentiality` the helpers by which programs read memory are missing. The verifier then
refuses the program in words that nobody understands, so it is looked for before loading.
"""

import errno
from pathlib import Path

from node_agent.kernel.errors import LoadError

_STATE = Path("/sys/kernel/security/lockdown")  # where securityfs is mounted
_COMMAND_LINE = Path("/proc/cmdline")
CONFIDENTIALITY = "confidentiality"
REMEDY = "boot with lockdown=integrity"


def parse_lockdown(text: str) -> str | None:
    """The mode in brackets of `none [integrity] confidentiality`; None when there is none."""
    _, opened, rest = text.partition("[")
    mode, closed, _ = rest.partition("]")
    return mode if opened and closed else None


def is_confidential(state: str, command_line: str) -> bool:
    """By the text of the state file, or by the boot's command line where that can't be read."""
    mode = parse_lockdown(state)
    if mode is None:
        return f"lockdown={CONFIDENTIALITY}" in command_line.split()
    return mode == CONFIDENTIALITY


def refuse_if_confidential() -> None:
    """Raises LoadError where no program could read memory."""
    if is_confidential(_read(_STATE), _read(_COMMAND_LINE)):
        raise LoadError(
            "The kernel lets no program read memory",
            f"it is locked down, lockdown={CONFIDENTIALITY}",
            f"To profile this host, {REMEDY}.",
            errno.EPERM,
        )


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
