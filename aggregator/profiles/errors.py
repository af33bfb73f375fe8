"""Errors of stored profiles and of questions about them: what is wrong, and what to do."""

from typing import ClassVar

from aggregator.errors import AggregatorError


class ProfileError(AggregatorError):
    """A stored profile cannot be written, read or merged."""

    code: ClassVar[str] = "profile"


class BlobError(ProfileError):
    """A blob of sections is corrupt, or sections do not fit the format."""

    code = "corrupt_blob"


class QueryError(ProfileError):
    """A parameter of a question about profiles cannot be understood or is out of range."""

    status = 400
    code = "bad_query"
    remedy = "mend the parameter that the message names"


class TooMuchError(ProfileError):
    """A question about more than can be added up here."""

    status = 413
    code = "too_much"
    remedy = (
        'ask for a shorter time, for fewer hosts ({host="..."}) or for one service '
        '({service="..."})'
    )
