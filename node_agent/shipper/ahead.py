"""Whether definitions go ahead of their batch, or behind it when the centre asks for them. Pure.

Behind it, a stack without a number costs its hash in the batch, and the definition where the centre
wants it. Ahead of it, it costs the definition, and no hash: the answer has its number. So with `p`
the share that the centre wants and `d` the bytes of a definition, ahead is cheaper while

    d < 16 + p d,   that is   p > 1 - 16 / d.

Both are taken from the last few batches, `d` with its part of the request's head. Where less than
half is wanted nothing goes ahead, however small it is: the centre would work for nothing. A node
whose programs the centre knows from other nodes asks first; one on which ever new stacks come up,
as no other node has them, does not.
"""

from wire.short import HASH_BYTES

_KEPT = 0.75  # of what was measured before, at each measure: the last four batches count most
_DOUBT = 1.0  # stacks that were not wanted, added: a few stacks say little
_DEFINITION_BYTES = 90.0  # before one was sent
_HEAD_BYTES = 250  # of an HTTP request
_LEAST_SHARE = 0.5
HELD_BATCHES = 30  # five minutes: how long it is not tried again after it failed


class Ahead:
    """Measures of one centre; `forget` for another one."""

    def __init__(self) -> None:
        self._stacks = self._bytes = 0.0
        self._held_batches = 0
        self.forget()

    def forget(self) -> None:
        """Begin anew, with definitions behind their batch."""
        self._unknown = self._wanted = 0.0

    def asked(self, unknown: int, wanted: int) -> None:
        """The centre wanted the definitions of `wanted` of `unknown` stacks without a number."""
        if unknown:
            self._unknown = self._unknown * _KEPT + unknown
            self._wanted = self._wanted * _KEPT + wanted

    def defined(self, stacks: int, size_bytes: int) -> None:
        """A request with the definitions of so many stacks had a body of so many bytes."""
        self._stacks = self._stacks * _KEPT + stacks
        self._bytes = self._bytes * _KEPT + size_bytes + _HEAD_BYTES

    def failed(self, held_batches: int = HELD_BATCHES) -> None:
        """The centre did not take definitions of today's form: leave them for so many batches."""
        self._held_batches = max(self._held_batches, held_batches)

    def batch_delivered(self) -> None:
        """Count down to the next try after a failure."""
        self._held_batches = max(0, self._held_batches - 1)

    @property
    def is_held(self) -> bool:
        """Whether a failure was not long ago."""
        return self._held_batches > 0

    @property
    def pays(self) -> bool:
        """Whether definitions ahead of the next batch are expected to save bytes."""
        if self.is_held:
            return False
        wanted_share = self._wanted / (self._unknown + _DOUBT)
        definition = self._bytes / self._stacks if self._stacks else _DEFINITION_BYTES
        return wanted_share > max(_LEAST_SHARE, 1 - HASH_BYTES / definition)
