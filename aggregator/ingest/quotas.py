"""How much one node may send: token buckets, so that no token can hold up the others or fill the
dictionary. Pure but for the clock that it is given.

Defaults follow from the most that an honest agent sends: 64 CPUs at 199 Hz are 12,736 samples a
second, so as many rows and new stacks where each sample is another stack, in batches of at most
8,192 stacks (node_agent ends an interval there). What goes on for long is less: a stack that is new
comes back, or the dictionary would grow by 100 GB a day. Whoever sends more is told when to go on
(429, Retry-After) and loses nothing: its spool waits. A request is taken while anything is left,
so the largest one passes too; what it takes too much has to come back before the next.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

from aggregator.config import Quotas
from aggregator.ingest.errors import OverQuotaError
from aggregator.ingest.recent import Recent
from wire.codec import declared_bytes
from wire.limits import MAX_EXTRACT_DECODED_BYTES

NODES_REMEMBERED = 20_000  # about 600 bytes each
_MIB = 1 << 20
_LONGEST_WAIT_S = 600  # then it may ask again


# Seconds of a quota that may come at once. A host that is new to the fleet has all of its programs'
# stacks, frames and symbols to tell: 130,000 new stacks, 260,000 frames, 256 MB of symbols.
BURST_S: Mapping[str, float] = {
    "requests": 60.0,
    "megabytes": 128.0,
    "rows": 60.0,
    "new_stacks": 100.0,
    "new_frames": 200.0,
    "new_series": 600.0,
    "extract_megabytes": 128.0,
}
KINDS = tuple(each.name for each in fields(Quotas))


def decoded_megabytes(body: bytes) -> float:
    """The size of a message as it says itself, at least that of its body. One that says more than
    any may have is refused before it is decoded, and costs its node no more than it sent."""
    declared = declared_bytes(body)
    return max(declared if declared <= MAX_EXTRACT_DECODED_BYTES else 0, len(body)) / _MIB


@dataclass
class _Buckets:
    """What is left to a node by kind, at `at_s`; below 0 it owes."""

    at_s: float
    left: dict[str, float] = field(default_factory=dict)


class NodeQuotas:
    """The buckets of all nodes, in this process."""

    def __init__(self, quotas: Quotas, clock: Callable[[], float] = time.monotonic) -> None:
        self._rates = {kind: getattr(quotas, kind) for kind in KINDS if getattr(quotas, kind) > 0}
        self._clock = clock
        self._nodes: Recent[int, _Buckets] = Recent(NODES_REMEMBERED)

    def admit(self, node_id: int, *kinds: str) -> None:
        """A request of the node that may take of these `kinds`. Raises OverQuotaError where one of
        them is used up."""
        left = self._left(node_id)
        for kind in ("requests", *kinds):
            if left.get(kind, 1.0) <= 0.0:
                wait_s = min(1 - left[kind] / self._rates[kind], _LONGEST_WAIT_S)
                raise OverQuotaError(kind, self._rates[kind], wait_s)
        self.take(node_id, requests=1)

    def take(self, node_id: int, **amounts: float) -> None:
        """The node has used so much."""
        left = self._left(node_id)
        for kind, amount in amounts.items():
            if kind in left:
                left[kind] -= amount

    def clear(self) -> None:
        """Forget all nodes."""
        self._nodes.clear()

    def _left(self, node_id: int) -> dict[str, float]:
        """What is left now."""
        now_s = self._clock()
        buckets = self._nodes.get(node_id)
        if buckets is None:
            full = {kind: rate * BURST_S[kind] for kind, rate in self._rates.items()}
            buckets = _Buckets(now_s, full)
            self._nodes.put(node_id, buckets)
            return buckets.left
        passed_s, buckets.at_s = now_s - buckets.at_s, now_s
        for kind, rate in self._rates.items():
            most = rate * BURST_S[kind]
            buckets.left[kind] = min(most, buckets.left[kind] + rate * passed_s)
        return buckets.left
