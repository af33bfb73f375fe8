"""Fewer nodes of a folded graph: the heaviest stay, and all that is below the zoomed one. Pure."""

from collections.abc import Sequence

import numpy as np

from aggregator.flamegraph.graph import OTHER_CODE, Folded
from aggregator.flamegraph.identity import function_id, path_numbers
from aggregator.profiles.frame_table import Function
from aggregator.profiles.grouping import Ints, group


def rank_zoomed(folded: Folded, path: int, functions: Sequence[Function]) -> Ints | None:
    """How much each node matters to who zooms into the node of `path` (`identity.path_numbers`): 2
    for that node, its callers and its children, so that each of them can be zoomed into next, 1 for
    what is deeper, else 0. None where there is no such node. `functions` are the dictionary's."""
    codes, index = np.unique(folded.code, return_inverse=True)
    ids = [function_id(folded.function_of(code, functions)) for code in codes.tolist()]
    starts = folded.level_starts()
    paths = path_numbers(folded.parent, starts, np.array(ids, np.uint64)[index])
    found = np.flatnonzero(paths == np.uint64(path))
    if not len(found):
        return None
    node = int(found[0])
    rank = np.zeros(len(folded.code), np.int64)
    rank[node] = 1
    for first, end in zip(starts[1:], [*starts[2:], len(rank)], strict=True):
        rank[first:end] |= rank[folded.parent[first:end]]
    rank[folded.parent == node] = 2
    while node >= 0:
        rank[node] = 2
        node = int(folded.parent[node])
    return rank


def prune(folded: Folded, max_nodes: int, first: Ints | None = None) -> Folded:
    """Keep the heaviest nodes; what is cut below a node becomes its one child "(other)".

    The result has at most `max_nodes` nodes, its "(other)" nodes included, but never fewer than
    the root and its "(other)". Nodes with more in `first` (0 to 2; never less than below them) are
    kept before all with less.
    """
    nodes = len(folded.code)
    if nodes <= max_nodes:
        return folded
    order = folded.total
    if first is not None:  # quarters: three whole totals may leave int64
        order = order // 4 + first * (order[0] // 4 + 1)
    rank = _rank_heaviest(order, max_nodes)
    kept_nodes = _nodes_to_keep(folded.parent, rank, max_nodes)
    kept = np.flatnonzero(rank < kept_nodes)
    number = np.full(nodes, -1)
    number[kept] = np.arange(len(kept))
    cut = np.flatnonzero(rank >= kept_nodes)
    cut = cut[number[folded.parent[cut]] >= 0]  # only the top of what is cut: it holds the rest
    others = group(number[folded.parent[cut]])
    weight, square = others.sums(folded.total[cut]), others.sums(folded.square[cut])
    return Folded(
        folded.services,
        np.concatenate((folded.code[kept], np.full(len(weight), OTHER_CODE))),
        np.concatenate((np.append([-1], number[folded.parent[kept[1:]]]), others.keys)),
        np.concatenate((folded.total[kept], weight)),
        np.concatenate((folded.self_[kept], weight)),
        np.concatenate((folded.square[kept], square)),
        np.concatenate((folded.self_square[kept], square)),
        np.concatenate((folded.level[kept], folded.level[kept[others.keys]] + 1)),
        folded.unnamed_share,
        np.concatenate((folded.frame[kept], np.zeros(len(weight), np.int64))),
        np.concatenate((folded.position[kept], np.zeros(len(weight), np.int64))),
        folded.cut_nodes + nodes - len(kept),
    )


def _rank_heaviest(total: Ints, most: int) -> Ints:
    """Places 0 to most - 1 for the heaviest nodes, `most` for all others.

    Nodes of the same weight are taken in their order, which has parents first; so whatever place
    one cuts at, no node is kept without its parent.
    """
    lightest = np.partition(total, len(total) - most)[len(total) - most]
    heavier = np.flatnonzero(total > lightest)
    equal = np.flatnonzero(total == lightest)[: most - len(heavier)]
    candidates = np.concatenate((heavier, equal))
    rank = np.full(len(total), most)
    rank[candidates[np.lexsort((candidates, -total[candidates]))]] = np.arange(most)
    return rank


def _nodes_to_keep(parent: Ints, rank: Ints, max_nodes: int) -> int:
    """The largest number of nodes that, with their "(other)" children, fit in `max_nodes`.

    With the first k nodes kept, p has an "(other)" if rank[p] < k <= the highest rank among its
    children; counting those p for every k at once is a sum of steps up and down.
    """
    last_child = np.full(max_nodes, -1)  # by the parent's rank
    parent_rank = rank[parent[1:]]
    ranked = np.flatnonzero(parent_rank < max_nodes)
    np.maximum.at(last_child, parent_rank[ranked], rank[1:][ranked])
    parents = np.flatnonzero(last_child >= 0)
    steps = np.zeros(max_nodes + 2, np.int64)
    np.add.at(steps, parents + 1, 1)
    np.add.at(steps, last_child[parents] + 1, -1)
    size = np.arange(max_nodes + 1) + np.cumsum(steps)[: max_nodes + 1]
    return max(1, int(np.flatnonzero(size <= max_nodes)[-1]))
