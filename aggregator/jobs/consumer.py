"""Celery's consumer without what workers tell each other.

Mingle, gossip and heartbeats talk over the broker: more foreign content that could end a worker,
for what nobody reads here.
"""

from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer


class Consumer(CeleryConsumer):  # type: ignore[misc]  # celery has no types
    """The consumer of every worker (`worker_consumer`)."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        worker_options = {
            **(options.pop("worker_options", None) or {}),
            "without_mingle": True,
            "without_gossip": True,
            "without_heartbeat": True,
        }
        super().__init__(*arguments, worker_options=worker_options, **options)
