"""Errors of alerts and of their delivery."""

from aggregator.errors import AggregatorError


class AlertsError(AggregatorError):
    """Base of this package's errors."""

    code = "alerts"


class SecretError(AlertsError):
    """A webhook's secret cannot be read."""

    remedy = 'give the secret as "whsec_" and base64, or as plain text'


class DeliveryError(AlertsError):
    """A webhook was not taken: the receiver answered with another status than 2xx."""

    remedy = "it is sent again by itself; see that the receiver is up and answers 2xx"


class UnreachableError(DeliveryError):
    """The receiver gave no answer: no address, no connection, or not in time. Whatever else waits
    for it would fare the same."""


class RefusedAddressError(UnreachableError):
    """The webhook's host has only addresses that are not to be reached from here."""

    remedy = "set allow_private for this webhook if its receiver is on a private network"
