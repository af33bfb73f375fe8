"""How far a node may be ahead of its batches with definitions.

A stack that a node defines before a batch brings it gets its row at once. What a shipper sends so
is of one batch, 8,192 stacks at most; if the batch never comes, the rows stay, as those of a stack
that came once do. More than MAX_AHEAD of them without a batch is refused, and the node goes on as
nodes did before: its batch first, then what the answer wants.
"""

from aggregator.ingest.errors import TooFarAheadError
from aggregator.ingest.recent import Recent

MAX_AHEAD = 65_536  # stacks of a node, of this process
_NODES_REMEMBERED = 100_000


class AheadOfBatches:
    """Stacks that each node has defined since its last batch."""

    def __init__(self, most: int = MAX_AHEAD) -> None:
        self._most = most
        self._stacks: Recent[int, int] = Recent(_NODES_REMEMBERED)

    def define(self, node_id: int, stacks: int) -> None:
        """The node sends so many. Raises TooFarAheadError."""
        ahead = (self._stacks.get(node_id) or 0) + stacks
        if ahead > self._most:
            raise TooFarAheadError(
                f"{ahead} stacks defined without a batch that names them; limit {self._most}"
            )
        self._stacks.put(node_id, ahead)

    def clear(self) -> None:
        """Forget all nodes."""
        self._stacks.clear()

    def batch_stored(self, node_id: int) -> None:
        """A batch of the node has come."""
        if self._stacks.get(node_id):
            self._stacks.put(node_id, 0)
