"""Errors of the agent: what happened and why, what to do, and the exit code of the command."""

EXIT_FAILED = 1
EXIT_CONFIG = 2
EXIT_IMPOSSIBLE = 3
EXIT_DETACHED = 4  # the breaker is open; systemd must not start it again (RestartPreventExitStatus)


class AgentError(Exception):
    """Base of the agent's errors. `remedy` is one sentence or command, or empty."""

    exit_code = EXIT_FAILED

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class ConfigError(AgentError):
    """The configuration cannot be used; each line of the message is one fault."""

    exit_code = EXIT_CONFIG


class SpoolError(AgentError):
    """The spool folder cannot be read or written."""


class SpoolFullError(SpoolError):
    """The disk (or quota) under the spool folder has no room left."""


class SpoolReadOnlyError(SpoolError):
    """The file system under the spool folder is mounted read-only."""


class SpoolFileError(SpoolError):
    """A file in the spool is not what it should be: too large, or no regular file."""


class SpoolAccessError(SpoolError):
    """The user of this process may not use the spool folder."""
