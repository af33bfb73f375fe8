"""Decoding what nodes send beside the event loop, a few messages at once, by what they declare.

msgspec holds the interpreter while it decodes: the number of items that a message may have bounds
for how long (`wire.limits`). What a message takes in memory is bounded by how many are decoded at
once.
"""

from collections.abc import Callable
from typing import TypeVar

from aggregator.workers import Workers
from wire.codec import declared_bytes

ON_LOOP_BYTES = 32 << 10  # decoded in a millisecond or two
SMALL_BYTES = 1 << 20
SMALL_AT_ONCE = 2
LARGE_AT_ONCE = 1

Read = TypeVar("Read")


class Decoders:
    """Threads for messages of up to SMALL_BYTES, and one for those that are larger."""

    def __init__(self) -> None:
        self._small = Workers("decoding", SMALL_AT_ONCE)
        self._large = Workers("decoding of large messages", LARGE_AT_ONCE, most_waiting=16)

    async def run(self, body: bytes, read: Callable[[], Read]) -> Read:
        """What `read` makes of `body`; in a thread unless that is small."""
        size = max(len(body), declared_bytes(body))
        if size <= ON_LOOP_BYTES:
            return read()
        return await (self._small if size <= SMALL_BYTES else self._large).run(read)

    async def close(self) -> None:
        """Drop what waits."""
        await self._small.close()
        await self._large.close()
