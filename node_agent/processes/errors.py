"""Errors of reading other processes. All of them are ordinary: processes come and go."""

from node_agent.errors import AgentError


class ProcessError(AgentError):
    """Something about a process could not be read."""


class ProcessGoneError(ProcessError):
    """The process has ended, or its id now belongs to another process."""


class FileUnavailableError(ProcessError):
    """A mapped file cannot be opened: deleted, replaced, not regular, or not allowed. `reason` is a
    word to count by."""

    def __init__(self, message: str, reason: str = "file_unavailable") -> None:
        super().__init__(message)
        self.reason = reason
