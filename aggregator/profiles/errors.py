"""Errors of stored profiles. Each says what is wrong and what to do about it."""


class ProfileError(Exception):
    """A stored profile cannot be written, read or merged."""


class BlobError(ProfileError):
    """A blob of sections is corrupt, or sections do not fit the format."""
