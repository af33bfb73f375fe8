"""Errors of reading symbols."""

from node_agent.errors import AgentError


class SymbolError(AgentError):
    """Symbols of a module cannot be had."""


class ElfError(SymbolError):
    """A file is not an ELF file that this agent reads, or its headers contradict each other."""


class OtherFormatError(ElfError):
    """A file of a format that is not read here: no ELF file at all, or one of 32 bits."""


class KernelSymbolsError(SymbolError):
    """The kernel does not tell its symbols."""


class ChildError(SymbolError):
    """The child process that reads symbols failed."""


class PerfMapError(SymbolError):
    """The perf map of a process is not to be trusted; `reason` is a word to count it by."""

    def __init__(self, message: str, remedy: str = "", reason: str = "") -> None:
        super().__init__(message, remedy)
        self.reason = reason
