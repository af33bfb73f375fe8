"""Errors of `flamefleet up` and of the servers that it starts."""


class LocalError(Exception):
    """Something on this machine keeps a local part from running; the message says the way out.

    `exit_code` is what the command line ends with.
    """

    exit_code = 1


class UsageError(LocalError):
    """A flag has a value that is not allowed."""

    exit_code = 2


class ServerMissingError(LocalError):
    """A server's binary is not installed, or the account that runs it cannot read it."""


class StartError(LocalError):
    """A local part was started and did not become ready."""


class InUseError(LocalError):
    """Another `flamefleet up` holds the data folder, or something else holds the port."""


class ProfilingRefusedError(LocalError):
    """This host or this user cannot profile (exit code 3, as `flamefleet-agent check`)."""

    exit_code = 3
