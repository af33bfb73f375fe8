"""Errors of symbols: extracts that nobody waits for, or that cannot be used."""

from aggregator.errors import AggregatorError


class SymbolsError(AggregatorError):
    """Base of this package's errors."""

    code = "symbols"


class RefusedExtractError(SymbolsError):
    """The extract cannot be used: it is malformed, of another module, or too costly to read."""

    status = 422
    code = "extract_refused"
    remedy = "the module's frames stay module+0xoffset; another node is asked later"


class UnexpectedExtractError(SymbolsError):
    """Nobody waits for this extract: this node has never reported the module, or was not asked for
    it."""

    status = 422
    code = "extract_unexpected"
    remedy = "send extracts only of build ids that the aggregator asked this node for"


class RefusedUploadError(SymbolsError):
    """An uploaded file cannot be used."""

    status = 422
    code = "upload_refused"
    remedy = "upload the unstripped program or library, or its separate file of debug information"


class UploadLengthError(SymbolsError):
    """The size of an upload is not told beforehand, so it cannot be bounded in time."""

    status = 411
    code = "length_required"
    remedy = "send a Content-Length"


class UploadSpaceError(SymbolsError):
    """There is no room for the file while it is read."""

    status = 507
    code = "no_space"
    remedy = "make room in the aggregator's folder for temporary files (TMPDIR)"


class UploadFailedError(SymbolsError):
    """What `flamefleet symbols upload` sent was not taken."""

    code = "upload_failed"
    remedy = "see the message"
