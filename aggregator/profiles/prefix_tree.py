"""The resident prefix tree of all stacks that were asked for.

Stacks that begin with the same frames share nodes, so weights travel to the root once a node and
not once a frame of every stack. Nodes are numbered as they come; a parent's number is lower than
its children's. Frames are numbers of the caller's own (`FrameTable`), root first.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aggregator.profiles.columns import Column, SortedMap
from aggregator.profiles.grouping import Floats, Ints, group
from aggregator.workers import checkpoint

ROOT = 0
UNDEFINED = 1  # the one node of all stacks whose frames are not known (yet)
REFUSED = 2  # that of all stacks whose frames were refused
UNDEFINED_FRAME = 0
REFUSED_FRAME = 1
_LOW = (1 << 32) - 1


@dataclass(frozen=True, eq=False)
class Level:
    """The nodes of one level that some weight reaches, once for each group they occur in.

    `parent` is an index into the level above; into the groups on the first level. The squares are
    those of `PrefixTree.totals`.
    """

    nodes: Ints
    parent: Ints
    total: Ints
    self_: Ints
    square: Floats
    self_square: Floats


class PrefixTree:
    """Frames of stacks as a tree that grows; not safe for several threads at once."""

    def __init__(self) -> None:
        self._parent = Column(np.int32)
        self._frame = Column(np.int32)
        self._level = Column(np.int16)
        self._children = SortedMap()  # parent << 32 | frame -> node
        self._leaves = SortedMap()  # stack id -> node
        self._extend([-1, ROOT, ROOT], [UNDEFINED_FRAME, UNDEFINED_FRAME, REFUSED_FRAME], 0)
        self._level.values[UNDEFINED:] = 1

    def __len__(self) -> int:
        return len(self._parent)

    def frames_of(self, nodes: Ints) -> Ints:
        """The frame of each node."""
        return self._frame.values[nodes].astype(np.int64)

    def leaves(self, stack_ids: Ints) -> Ints:
        """The node at which each stack ends, -1 for stacks that were not added."""
        return self._leaves.find(stack_ids)

    def add(self, stack_ids: Ints, lengths: Ints, frames: Ints) -> None:
        """Add stacks: ids (n, distinct), their lengths (n) and all their frames, root first.

        Stacks that are there already are left as they are.
        """
        starts = np.cumsum(lengths) - lengths
        new = np.flatnonzero(self._leaves.find(stack_ids) < 0)
        new = new[np.argsort(-lengths[new], kind="stable")]  # the deep ones first
        lengths, starts = lengths[new], starts[new]
        nodes = np.full(len(new), ROOT, np.int64)
        added_keys, added_nodes = [], []
        for level in range(int(lengths[0]) if len(new) else 0):
            live = int(np.searchsorted(-lengths, -level))  # stacks of more than `level` frames
            keys = (nodes[:live] << 32) | frames[starts[:live] + level]
            groups = group(keys)
            found = self._children.find(groups.keys)
            missing = np.flatnonzero(found < 0)
            found[missing] = len(self) + np.arange(len(missing))
            fresh = groups.keys[missing]
            self._extend(fresh >> 32, fresh & _LOW, level + 1)
            added_keys.append(fresh)
            added_nodes.append(found[missing])
            nodes[:live] = found[groups.index]
        if added_keys:
            self._children.add(np.concatenate(added_keys), np.concatenate(added_nodes))
        self._leaves.add(stack_ids[new], nodes)

    def path(self, node: int) -> list[int]:
        """The frames from the root to `node`."""
        parent, frame = self._parent.values, self._frame.values
        frames = []
        while node != ROOT:
            frames.append(int(frame[node]))
            node = int(parent[node])
        return frames[::-1]

    def totals(
        self, groups: Ints, leaves: Ints, weights: Ints, squares: Floats | None = None
    ) -> list[Level]:
        """The levels below the groups, from the first on, with exact total and self weights.

        Row i says: weight `weights[i]` ends at node `leaves[i]` (not the root) in `groups[i]`,
        which count from 0 and stay below 2**31. `squares[i]` is added up beside it: the squared
        weights of the row's samples, which say how sure its share is; without them all are 0.
        """
        if squares is None:
            squares = np.zeros(len(weights))
        depth = self._level.values[leaves].astype(np.int64)
        keys = (groups << 32) | leaves
        levels: list[Level] = []
        below = np.zeros(0, np.int64)  # keys of the parents of the level done before
        below_total = np.zeros(0, np.int64)
        below_square = np.zeros(0)
        for level in range(int(depth.max()) if len(depth) else 0, 0, -1):
            checkpoint()
            ending = np.flatnonzero(depth == level)
            column = np.concatenate((below, keys[ending]))
            pairs = group(column)
            if levels:
                levels[-1].parent[:] = pairs.index[: len(below)]
            own = np.concatenate((np.zeros(len(below), np.int64), weights[ending]))
            total = pairs.sums(np.concatenate((below_total, weights[ending])))
            own_square = np.concatenate((np.zeros(len(below)), squares[ending]))
            square = pairs.sums(np.concatenate((below_square, squares[ending])))
            nodes = pairs.keys & _LOW
            sums = (total, pairs.sums(own), square, pairs.sums(own_square))
            levels.append(Level(nodes, pairs.keys >> 32, *sums))
            below = (pairs.keys & ~np.int64(_LOW)) | self._parent.values[nodes]
            below_total, below_square = total, square
        return levels[::-1]

    def _extend(self, parent: object, frame: object, level: int) -> None:
        parents: NDArray[np.int32] = np.asarray(parent, np.int32)
        self._parent.extend(parents)
        self._frame.extend(np.asarray(frame, np.int32))
        self._level.extend(np.full(len(parents), level, np.int16))
