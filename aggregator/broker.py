"""The channel to the broker, which outlives the broker's absence.

When the broker goes away while a job is under way, kombu (5.7) puts the job's message back, or
acknowledges it, on the connection that it has just closed. That raises AttributeError, which Celery
takes for a fault of its own, and the worker ends for good. Here it is what it is: a connection that
is closed, which Celery outlives. Nothing is lost with the message: beat asks for each job again.
"""

from typing import Any

from kombu.transport import redis


class Channel(redis.Channel):
    """A channel of Valkey that says when its connection is closed."""

    def _connparams(self, *arguments: Any, **options: Any) -> Any:
        if self.connection is None or self.connection.client is None:
            raise ConnectionError("the connection to the broker is closed")
        return super()._connparams(*arguments, **options)  # type: ignore[no-untyped-call]  # kombu has no types


def outlive_absence() -> None:
    """Use this channel for every connection to a broker that is made from now on."""
    redis.Transport.Channel = Channel
