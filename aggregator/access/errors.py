"""Errors of access."""

from aggregator.errors import AggregatorError


class AccessError(AggregatorError):
    """Base of the errors of this package."""


class UnknownTokenError(AccessError):
    """No token, one that was never given out, or one that was revoked."""

    status = 401
    code = "unknown_token"
    remedy = "enrol the node: run `flamefleet token create NODE` at the centre and give it to it"


class NodeMismatchError(AccessError):
    """The message names another node than the one its token was given to."""

    status = 403
    code = "wrong_node"
    remedy = "set the agent's name to the one that its token was made for, or make a new token"


class UnknownNodeError(AccessError):
    """No node has that name."""

    status = 404
    code = "unknown_node"
    remedy = "check the spelling; `flamefleet token create NODE` makes it"


class UnknownOperatorError(AccessError):
    """No operator has that name."""

    status = 404
    code = "unknown_operator"
    remedy = "check the spelling; `flamefleet token create --operator NAME` makes it"


class ReadTokenError(AccessError):
    """A question without the read token, or with a wrong one."""

    status = 401
    code = "read_token"
    remedy = (
        "send the token of `read_token_file` as a bearer token, or as the password of basic "
        "authentication"
    )
