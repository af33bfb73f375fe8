"""What each function used, from every node of a folded graph. Pure."""

from dataclasses import dataclass, fields

import numpy as np

from aggregator.flamegraph.graph import Folded
from aggregator.profiles.grouping import Floats, Ints


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
        self.enter, self.size = enter, size


def sum_functions(folded: Folded, nesting: Nesting, key: Ints, nodes: Ints) -> FunctionSums:
    """The sums of those `nodes` that have the same `key` (one for each of them)."""
    if not len(nodes):
        none = np.zeros(0, np.int64)
        return FunctionSums(none, none, np.zeros(0), none, np.zeros(0), none)
    # By key, and as one walks through the graph: what is below a node follows it at once.
    order = np.argsort(key * len(folded.code) + nesting.enter[nodes])
    nodes, key = nodes[order], key[order]
    first = np.ones(len(nodes), bool)
    first[1:] = key[1:] != key[:-1]
    starts = np.flatnonzero(first)
    enter = nesting.enter[nodes] + (np.cumsum(first) - 1) * (len(folded.code) + 1)
    ends = np.maximum.accumulate(enter + nesting.size[nodes])  # of one key: never into the next
    outer = np.ones(len(nodes), bool)
    outer[1:] = ends[:-1] <= enter[1:]  # recursion: below a node with the same key
    return FunctionSums(
        key[starts],
        np.add.reduceat(folded.self_[nodes], starts),
        np.add.reduceat(folded.self_square[nodes], starts),
        np.add.reduceat(np.where(outer, folded.total[nodes], 0), starts),
        np.add.reduceat(np.where(outer, folded.square[nodes], 0.0), starts),
        np.diff(np.append(starts, len(nodes))),
    )


def join(sums: FunctionSums, without: Ints, more: FunctionSums) -> FunctionSums:
    """Sums without some of their keys, and those of more keys, all of which are higher."""
    kept = ~np.isin(sums.keys, without)
    columns = [(getattr(sums, f.name), getattr(more, f.name)) for f in fields(FunctionSums)]
    return FunctionSums(*(np.concatenate((one[kept], other)) for one, other in columns))
