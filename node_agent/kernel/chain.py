"""Which of the ways to load a program this host gets: CO-RE, else bcc, else a refusal in words."""

import errno
from typing import NamedTuple

from node_agent.kernel.errors import KernelError, LoadError, NoModeError
from node_agent.kernel.libbpf import LoadedObject, load_object
from node_agent.kernel.lockdown import refuse_if_confidential
from node_agent.kernel.program import Program

AUTO = "auto"
CORE = "core"
MODES = (CORE, "bcc")  # the better one first
NAMES = {CORE: "CO-RE", "bcc": "bcc"}


class Loaded(NamedTuple):
    """A loaded program, the mode that did it, and why each better one did not."""

    mode: str
    object: LoadedObject
    reasons: dict[str, str]


def load_program(program: Program, mode: str = AUTO) -> Loaded:
    """Load by `mode`, or with AUTO by the first that works.

    Raises the error of the one mode that was asked for; NoModeError when all of them failed; and
    at once the error that no other mode could mend.
    """
    refuse_if_confidential()
    reasons: dict[str, str] = {}
    errors: list[KernelError] = []
    for name in MODES if mode == AUTO else (mode,):
        try:
            return Loaded(name, _load(program, name), reasons)
        except KernelError as error:
            if mode != AUTO or (not errors and not _may_be_mended(error)):
                raise
            errors.append(error)
            reasons[name] = f"{error.what}: {error.why}"
    raise NoModeError(
        "No mode can load the program",
        "; ".join(f"{NAMES[name]}: {reason}" for name, reason in reasons.items()),
        " Or: ".join(dict.fromkeys(error.remedy for error in errors if error.remedy)),
    )


def _load(program: Program, mode: str) -> LoadedObject:
    if mode == CORE:
        return load_object(
            program.path,
            program.programs,
            program.maps + program.core_maps,
            program.max_entries,
            program.settings,
        )
    from node_agent.kernel import bcc  # most hosts never need it

    return bcc.load(program)


def _may_be_mended(error: KernelError) -> bool:
    """Whether another mode may work where this error came from CO-RE: the kernel refused the
    object, and not for want of a capability. Both modes need libbpf and the object."""
    return isinstance(error, LoadError) and error.code != errno.EPERM
