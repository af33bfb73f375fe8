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
    """Nobody waits for this extract: this node has never reported the module."""

    status = 422
    code = "extract_unexpected"
    remedy = "send extracts only of build ids that the aggregator asked this node for"
