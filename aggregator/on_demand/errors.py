"""Errors of profiles on demand: why a node is not asked."""

from aggregator.errors import AggregatorError


class OnDemandError(AggregatorError):
    """Base of this package's errors."""

    code = "on_demand"


class BadProfileError(OnDemandError):
    """The body of a request cannot be understood, or a value in it is out of range."""

    status = 400
    code = "bad_profile"
    remedy = 'send JSON, for example {"seconds": 60, "rate_hz": 199, "collector": "cpu"}'


class UnknownProfileError(OnDemandError):
    """That node was never asked for a profile of that number, or it is long over."""

    status = 404
    code = "unknown_profile"
    remedy = "GET /api/v1/nodes/NODE/profiles lists those that are kept"


class BusyNodeError(OnDemandError):
    """The node has a profile already."""

    status = 409
    code = "profile_under_way"


class NotOfferedError(OnDemandError):
    """The node has said that it would refuse this."""

    status = 422
    code = "profile_not_offered"


class AgentTooOldError(OnDemandError):
    """The node's agent does not know profiles on demand."""

    status = 422
    code = "agent_too_old"
    remedy = "install a newer flamefleet-agent on the node"


class TooManyProfilesError(OnDemandError):
    """An operator has asked for too many profiles."""

    status = 429
    code = "too_many_profiles"
