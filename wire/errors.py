"""Errors of the wire format. Each says what is wrong and what the other side should do."""


class WireError(Exception):
    """A message that cannot be accepted as it is; sending it again unchanged will not help."""


class UnsupportedVersionError(WireError):
    """The message is of a version (or a kind) that this side does not know."""


class TooLargeError(WireError):
    """The message, or what it decompresses to, is larger than the limit."""


class MalformedError(WireError):
    """The message is truncated, not decodable, or its columns do not fit together."""
