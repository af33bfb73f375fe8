"""Errors of ingest. Those with a 4xx status are for good: sending the same again cannot help."""

import math

from aggregator.errors import RETRY_AFTER_S, AggregatorError


class IngestError(AggregatorError):
    """Base of the errors of this package."""


class BadValueError(IngestError):
    """A value in a message is out of range, although its form is right."""

    status = 422
    code = "bad_value"
    remedy = "upgrade the agent; if it is the newest, report this as a bug"


class UnknownNumberError(IngestError):
    """A short batch names a stack or labels by a number that does not stand for them here."""

    status = 422
    code = "unknown_number"
    remedy = "nothing was stored; send this batch whole, in wire version 1"


class TooFarAheadError(IngestError):
    """A node defines stack after stack that no batch of its brings."""

    status = 422
    code = "too_far_ahead"
    remedy = "send the batch, then the definitions that its answer wants"


class OutOfTimeError(IngestError):
    """A batch from too long ago or from the future; with the node's clock offset where known."""

    status = 422
    code = "out_of_time"
    remedy = "check the node's clock (for example `timedatectl`)"

    def __init__(self, message: str, clock_offset_ms: int | None = None) -> None:
        super().__init__(message)
        self.clock_offset_ms = clock_offset_ms


class OutlivedError(OutOfTimeError):
    """A batch from before what is kept: it would be dropped as soon as it is stored."""

    code = "outlived"
    remedy = "keep profiles longer (`retention.profiles_60s_s`), or mend what delays the node"


class ClocksApartError(OutOfTimeError):
    """A batch that cannot be placed in time until the node's clock or the centre's is mended."""

    status = 503
    code = "clocks_apart"
    remedy = "check both clocks (`timedatectl`); the node keeps the batch and sends it again"
    retry_after_s = 60


class ClonedNodeError(IngestError):
    """Two different batches with one sequence number: two hosts share a token and a run."""

    status = 409
    code = "cloned_node"
    remedy = "give each host its own token and restart both samplers"


class OverQuotaError(IngestError):
    """A node has sent more than it may for now."""

    status = 429
    code = "over_quota"
    remedy = "the node sends it again by itself; raise `[quotas]` if it is right to send so much"

    def __init__(self, kind: str, rate: float, wait_s: float) -> None:
        super().__init__(
            f"the node has used up its {kind.replace('_', ' ')}: {rate:g} a second come back"
        )
        self.code = f"over_quota_{kind}"  # type: ignore[misc]  # which of them counts apart
        self.retry_after_s = math.ceil(wait_s)


class BusyError(IngestError):
    """Too many batches wait for a commit, or the aggregator is shutting down."""

    status = 503
    code = "busy"
    retry_after_s = RETRY_AFTER_S
    remedy = "send the batch again later"
