"""What can go wrong between the agent and the kernel."""

from node_agent.errors import EXIT_IMPOSSIBLE, AgentError


class KernelError(AgentError):
    """Base of this package's errors: what happened, why, and what to do about it."""

    exit_code = EXIT_IMPOSSIBLE

    def __init__(self, what: str, why: str, remedy: str) -> None:
        super().__init__(f"{what}: {why}", remedy)
        self.what = what
        self.why = why


class LibbpfError(KernelError):
    """libbpf.so.1 is missing or unusable."""


class ObjectError(KernelError):
    """A compiled BPF object is missing or is not what this version expects."""


class LoadError(KernelError):
    """The kernel refused a BPF object; `code` is its errno, 0 if unknown."""

    def __init__(self, what: str, why: str, remedy: str, code: int = 0) -> None:
        super().__init__(what, why, remedy)
        self.code = code


class BccError(KernelError):
    """bcc is missing, or its child did not compile the program."""


class HeadersError(KernelError):
    """There are no headers of the running kernel."""


class NoModeError(KernelError):
    """Every mode of loading a program failed."""


class PerfEventError(KernelError):
    """The kernel refused a perf event, or the program on it; `code` is its errno, 0 if unknown."""

    def __init__(self, what: str, why: str, remedy: str, code: int = 0) -> None:
        super().__init__(what, why, remedy)
        self.code = code


class NamespaceError(KernelError):
    """The agent's PID namespace cannot be told from its /proc."""


class MapError(KernelError):
    """Reading or switching a BPF map failed."""


class KernelLogError(KernelError):
    """The kernel's log cannot be read."""


class KernelListError(KernelError):
    """The list of known bad kernels is damaged."""
