"""The centre's error base. A domain error knows the HTTP status that it deserves, nothing more."""

from typing import ClassVar

from wire.called_as import as_called
from wire.errors import TooLargeError, UnsupportedVersionError, WireError

RETRY_AFTER_S = 5


class AggregatorError(Exception):
    """Something that the centre refuses or cannot do.

    `code` is a stable word for programs and for counters, `remedy` says what to do about it.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    retry_after_s: int | None = None  # when the same may be sent again, of answers that say so
    remedy: ClassVar[str] = "see the aggregator's log"

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if remedy is not None:
            self.remedy = remedy  # type: ignore[misc]  # an instance may be more precise

    def for_terminal(self) -> str:
        """What the command line says, with commands as they are called on this machine."""
        lines = f"flamefleet: {self.message}"
        return as_called(f"{lines}\n  what to do: {self.remedy}" if self.remedy else lines)


class ConfigError(AggregatorError):
    """A setting is missing, unknown or out of range."""

    code = "config"
    remedy = "mend the setting that the message names"


class DatabaseError(AggregatorError):
    """The database refused a statement: a value it cannot hold, or a broken constraint."""

    code = "database"


class DatabaseUnavailableError(DatabaseError):
    """The database cannot be reached, shuts down or gave up on a lock; trying again helps."""

    status = 503
    code = "database_unavailable"
    retry_after_s = RETRY_AFTER_S
    remedy = "try again; if it stays, check that Postgres runs and accepts connections"


class UnstorableError(DatabaseError):
    """The database cannot hold a value of the message: sending it again will not help."""

    status = 422
    code = "unstorable"
    remedy = "upgrade the agent; if it is the newest, report this as a bug"


class SchemaError(DatabaseError):
    """The schema is of a version of Flamefleet that this one does not know."""

    code = "schema"
    remedy = (
        "run that version or a newer one, or give this one another database; `flamefleet up` "
        "takes another folder with --data-dir"
    )


class MissingPartitionError(DatabaseError):
    """A row belongs to a time range whose partition does not exist (yet)."""

    code = "missing_partition"


def wire_status(error: WireError) -> tuple[int, str]:
    """The HTTP status and code of an error of the wire format."""
    if isinstance(error, TooLargeError):
        return 413, "too_large"
    if isinstance(error, UnsupportedVersionError):
        return 415, "unsupported_version"
    return 400, "malformed"
