"""What each function used, from every node of a folded graph. Pure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aggregator.flamegraph.graph import Folded
from aggregator.profiles.grouping import Floats, Ints, group


@dataclass(frozen=True, eq=False)
class FunctionSums:
    """Sums of each of the distinct `keys`; the total counts recursion once. `nodes` is the number
    of its places in the graph; the squares are those of `Folded`."""

    keys: Ints
    self_: Ints
    self_square: Floats
    total: Ints
    total_square: Floats
    nodes: Ints

    def at(self, keys: Ints) -> "FunctionSums":
        """The sums of these keys, 0 for those that are not there."""
        places = np.searchsorted(self.keys, keys)
        places[places == len(self.keys)] = 0
        there = self.keys[places] == keys
        columns = (self.self_, self.self_square, self.total, self.total_square, self.nodes)
        return FunctionSums(keys, *(np.where(there, column[places], 0) for column in columns))


class Nesting:
    """Which nodes of an unpruned graph lie below which, as ranges of a walk through it."""

    def __init__(self, folded: Folded) -> None:
        nodes, starts = len(folded.code), folded.level_starts()
        spans = list(zip(starts, [*starts[1:], nodes], strict=True))
        size = np.ones(nodes, np.int64)
        for (above, end_above), (first, end) in zip(
            reversed(spans[:-1]), reversed(spans[1:]), strict=True
        ):
            parents = folded.parent[first:end] - above
            below = np.bincount(parents, size[first:end], end_above - above)
            size[above:end_above] += below.astype(np.int64)
        enter = np.zeros(nodes, np.int64)
        for first, end in spans[1:]:
            parents = folded.parent[first:end]
            before = np.cumsum(size[first:end]) - size[first:end]
            eldest = np.searchsorted(parents, parents)  # siblings stand side by side
            enter[first:end] = enter[parents] + 1 + before - before[eldest]
        self._enter, self._size = enter, size

    def outermost(self, key: Ints) -> NDArray[np.bool_]:
        """The nodes that have no caller with their own key."""
        nodes = len(key)
        order = np.lexsort((self._enter, key))
        enter = self._enter[order]
        ordered = key[order]
        rank = np.zeros(nodes, np.int64)
        rank[1:] = np.cumsum(ordered[1:] != ordered[:-1])
        base = rank * (nodes + 1)  # ends of one key never reach into the next
        end = np.maximum.accumulate(base + enter + self._size[order])
        outer = np.ones(nodes, bool)
        outer[order[1:]] = end[:-1] <= base[1:] + enter[1:]
        return outer


def sum_functions(folded: Folded, nesting: Nesting, key: Ints) -> FunctionSums:
    """The sums of nodes with the same `key` (one a node)."""
    groups = group(key)
    outer = nesting.outermost(key)
    return FunctionSums(
        groups.keys,
        groups.sums(folded.self_),
        groups.sums(folded.self_square),
        groups.sums(np.where(outer, folded.total, 0)),
        groups.sums(np.where(outer, folded.square, 0.0)),
        groups.sums(np.ones(len(key), np.int64)),
    )
