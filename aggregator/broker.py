"""The channel to the broker, which outlives the broker's absence and whatever lies in it.

When the broker goes away while a job is under way, kombu (5.7) puts the job's message back, or
acknowledges it, on the connection that it has just closed. That raises AttributeError, which Celery
takes for a fault of its own, and the worker ends for good. Here it is what it is: a connection that
is closed, which Celery outlives. Nothing is lost with the message: beat asks for each job again.

For the same reason nothing but the queues is kept in the broker: no list of messages under way, no
table of bindings. Foreign content of a queue is dropped, counted and logged (`aggregator.jobs`).
"""

import logging
from collections import Counter
from collections.abc import Collection
from datetime import datetime, timezone
from queue import Empty
from typing import Any
from uuid import uuid4

import redis
from kombu.transport import redis as kombu_redis

from aggregator.jobs.hints import GarbageError, read_hint, write_hint

_log = logging.getLogger(__name__)


class Screen:
    """Lets messages of `jobs` through and drops all others. `dropped` are those that no job was
    told of yet, by reason; `total` are all."""

    def __init__(self, jobs: Collection[str]) -> None:
        self.jobs = frozenset(jobs)
        self.dropped: Counter[str] = Counter()
        self.total: Counter[str] = Counter()

    def screen(self, queue: str, item: bytes) -> bytes | None:
        """The message to hand on in place of `item`; None for garbage."""
        try:
            hint = read_hint(item, self.jobs, datetime.now(timezone.utc))
        except GarbageError as error:
            self.drop(queue, str(error))
            return None
        told = {"dropped": dict(self.dropped)} if self.dropped else {}
        self.dropped.clear()
        return write_hint(hint, queue, str(uuid4()), told)

    def drop(self, queue: str, reason: str) -> None:
        """Count and, ever more rarely, log something that was dropped."""
        self.dropped[reason] += 1
        self.total[reason] += 1
        count = self.total[reason]
        if count & (count - 1) == 0:  # 1, 2, 4, 8 ...: a flood must not fill the log
            _log.error(
                "the broker's queue %s held what is no message of ours (%s), %d so far: dropped; "
                "see who else writes to this broker, and give it a password",
                queue,
                reason,
                count,
            )


class Client(redis.Redis):
    """A client that takes screened messages only out of a queue."""

    screen: Screen

    def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
        answer = super().parse_response(connection, command_name, **options)  # type: ignore[no-untyped-call]  # redis-py has none here
        if command_name != "BRPOP" or not answer:
            return answer
        key, item = answer
        message = self.screen.screen(key.decode(errors="replace"), item)
        return None if message is None else (key, message)  # None is what a wait in vain gives


class Channel(kombu_redis.Channel):
    """A channel of Valkey that says when its connection is closed, and holds queues only."""

    ack_emulation = False
    do_restore = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)  # type: ignore[no-untyped-call]  # kombu has no types
        self.priority_steps = [0]  # one key of the broker a queue

    def _connparams(self, *arguments: Any, **options: Any) -> Any:
        if self.connection is None or self.connection.client is None:
            raise ConnectionError("the connection to the broker is closed")
        return super()._connparams(*arguments, **options)  # type: ignore[no-untyped-call]  # kombu has no types

    def _get_client(self) -> type[Client]:
        return Client

    def _queue_bind(self, *_: Any) -> None:
        """Nothing: a routing key is the name of its queue."""

    def _lookup(self, exchange: str, routing_key: str, default: Any = None) -> list[str]:
        return [routing_key]

    def _size(self, queue: str) -> Any:
        try:
            return super()._size(queue)  # type: ignore[no-untyped-call]  # kombu has no types
        except redis.ResponseError as error:
            self._clear(error, [queue])
            return 0

    def _put(self, queue: str, message: Any, **options: Any) -> None:
        try:
            super()._put(queue, message, **options)  # type: ignore[no-untyped-call]  # kombu has no types
        except redis.ResponseError as error:
            self._clear(error, [queue])
            super()._put(queue, message, **options)  # type: ignore[no-untyped-call]  # kombu has no types

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]  # kombu has no types
        except redis.ResponseError as error:
            self._clear(error, self.active_queues)
            raise Empty from error

    def _clear(self, error: redis.ResponseError, queues: Collection[str]) -> None:
        """Remove what has the name of one of `queues` and is none, where `error` says so."""
        if "WRONGTYPE" not in str(error):
            raise error
        with self.conn_or_acquire() as client:
            for queue in queues:
                if client.type(queue) not in (b"list", b"none"):
                    client.delete(queue)
                    Client.screen.drop(queue, "wrong_type")


def screen_broker(jobs: Collection[str]) -> Screen:
    """Use this channel, with messages of `jobs`, for every connection to a broker that is made from
    now on."""
    Client.screen = Screen(jobs)
    kombu_redis.Transport.Channel = Channel
    return Client.screen
