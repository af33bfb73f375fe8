"""A flamegraph as columns: folded to functions, pruned, in an order that does not jump. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aggregator.flamegraph.chains import Chains
from aggregator.profiles.dictionary import Dictionary
from aggregator.profiles.frame_table import FrameTable, Function
from aggregator.profiles.grouping import Ints, group
from aggregator.profiles.prefix_tree import Level
from aggregator.workers import checkpoint

ALL = Function("all", "", "process")
OTHER = Function("(other)", "", "unknown")
_ALL_CODE = 0
_OTHER_CODE = 1
_FIRST_SERVICE_CODE = 2


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes as int64 columns, parents before children; node 0 is the root, its parent -1.

    `function` indexes `functions`; `total` and `self_` are nanoseconds of CPU, a node's total is
    its self plus its children's totals. `cut_nodes` were pruned into "(other)" children. `places`
    are file and line of each node, those of its heaviest frame; empty where not known.
    """

    functions: list[Function]
    function: Ints
    parent: Ints
    total: Ints
    self_: Ints
    level: Ints
    cut_nodes: int = 0
    places: Sequence[tuple[str, int]] = ()


@dataclass(frozen=True, eq=False)
class Folded:
    """A graph before its functions are looked up; `code` counts root, other, services, functions.

    `unnamed_share` is the share of frames without a symbol, weighted by time. `frame` is the number
    of each node's heaviest frame (0 for none), `position` the node's place in that frame's chain of
    inlining.
    """

    services: Sequence[str]
    code: Ints
    parent: Ints
    total: Ints
    self_: Ints
    level: Ints
    unnamed_share: float
    frame: Ints
    position: Ints
    cut_nodes: int = 0


def fold(levels: list[Level], services: Sequence[str], dictionary: Dictionary) -> Folded:
    """Merge frames to functions: root, then one node a service, then the levels of the tree.

    The groups of `levels` are indexes into `services`. A frame that stands for several functions,
    because one was inlined into the other, becomes as many nodes.
    """
    shift = _FIRST_SERVICE_CODE + len(services)
    by_service = np.zeros(len(services), np.int64)
    if levels:
        np.add.at(by_service, levels[0].parent, levels[0].total)
    nothing = np.zeros(len(services), np.int64)
    zero = np.zeros(1, np.int64)
    columns: list[tuple[Ints, ...]] = [
        (np.array([_ALL_CODE]), np.array([-1]), by_service.sum(keepdims=True), zero, zero, zero),
        (
            _FIRST_SERVICE_CODE + np.arange(len(services)),
            nothing,
            by_service,
            nothing,
            nothing,
            nothing,
        ),
    ]
    size = 1 + len(services)
    chains = Chains(levels, dictionary)
    for depth in range(chains.depth):
        checkpoint()
        rows = chains.rows_at(depth)
        merged = group((rows.above << 32) | (shift + rows.function))
        total = merged.sums(rows.total)
        heaviest = merged.heaviest(rows.total)
        columns.append(
            (
                merged.keys & 0xFFFFFFFF,
                merged.keys >> 32,
                total,
                merged.sums(rows.self_),
                rows.frame[heaviest],
                rows.position[heaviest],
            )
        )
        chains.put(size + merged.index)
        size += len(merged.keys)
    code, parent, total, self_, frame, position = (
        np.concatenate(column) for column in zip(*columns, strict=True)
    )
    level_of = np.repeat(np.arange(len(columns)), [len(column[0]) for column in columns])
    share = _unnamed_share(levels, dictionary)
    return Folded(services, code, parent, total, self_, level_of, share, frame, position)


def _unnamed_share(levels: list[Level], dictionary: Dictionary) -> float:
    unnamed = everything = 0.0
    for level in levels:
        weights = level.total.astype(np.float64)
        everything += float(weights.sum())
        frames = dictionary.tree.frames_of(level.nodes)
        unnamed += float(weights[dictionary.frames.unnamed(frames)].sum())
    return unnamed / everything if everything else 0.0


def prune(folded: Folded, max_nodes: int) -> Folded:
    """Keep the heaviest nodes; what is cut below a node becomes its one child "(other)".

    The result has at most `max_nodes` nodes, its "(other)" nodes included, but never fewer than
    the root and its "(other)".
    """
    nodes = len(folded.code)
    if nodes <= max_nodes:
        return folded
    rank = _rank_heaviest(folded.total, max_nodes)
    kept_nodes = _nodes_to_keep(folded.parent, rank, max_nodes)
    kept = np.flatnonzero(rank < kept_nodes)
    number = np.full(nodes, -1)
    number[kept] = np.arange(len(kept))
    cut = np.flatnonzero(rank >= kept_nodes)
    cut = cut[number[folded.parent[cut]] >= 0]  # only the top of what is cut: it holds the rest
    others = group(number[folded.parent[cut]])
    weight = others.sums(folded.total[cut])
    return Folded(
        folded.services,
        np.concatenate((folded.code[kept], np.full(len(weight), _OTHER_CODE))),
        np.concatenate((np.append([-1], number[folded.parent[kept[1:]]]), others.keys)),
        np.concatenate((folded.total[kept], weight)),
        np.concatenate((folded.self_[kept], weight)),
        np.concatenate((folded.level[kept], folded.level[kept[others.keys]] + 1)),
        folded.unnamed_share,
        np.concatenate((folded.frame[kept], np.zeros(len(weight), np.int64))),
        np.concatenate((folded.position[kept], np.zeros(len(weight), np.int64))),
        folded.cut_nodes + nodes - len(kept),
    )


def arrange(folded: Folded, frames: FrameTable) -> Graph:
    """Breadth first, siblings side by side and sorted by function name.

    `frames` are the dictionary's, whose functions the codes of `folded` mean.
    """
    functions = frames.functions
    shift = _FIRST_SERVICE_CODE + len(folded.services)
    codes, index = np.unique(folded.code, return_inverse=True)
    named = [_function(code, folded.services, functions, shift) for code in codes.tolist()]
    by_name = sorted(range(len(named)), key=lambda i: _sort_key(named[i]))
    rank = np.empty(len(named), np.int64)
    rank[by_name] = np.arange(len(named))
    function = rank[index]
    number = np.full(len(folded.code), -1)
    order: list[Ints] = []
    done = 0
    for level in range(int(folded.level.max()) + 1):
        nodes = np.flatnonzero(folded.level == level)
        parents = number[folded.parent[nodes]] if level else np.zeros(len(nodes), np.int64)
        nodes = nodes[np.lexsort((function[nodes], parents))]
        number[nodes] = done + np.arange(len(nodes))
        done += len(nodes)
        order.append(nodes)
    old = np.concatenate(order)
    parent = np.append([-1], number[folded.parent[old[1:]]])
    return Graph(
        [named[i] for i in by_name],
        function[old],
        parent,
        folded.total[old],
        folded.self_[old],
        folded.level[old],
        folded.cut_nodes,
        [
            frames.line_at(frame, place) if frame else ("", 0)
            for frame, place in zip(
                folded.frame[old].tolist(), folded.position[old].tolist(), strict=True
            )
        ],
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


def _function(
    code: int, services: Sequence[str], functions: Sequence[Function], shift: int
) -> Function:
    if code == _ALL_CODE:
        return ALL
    if code == _OTHER_CODE:
        return OTHER
    if code < shift:
        return Function(services[code - _FIRST_SERVICE_CODE], "", "process")
    return functions[code - shift]


def _sort_key(function: Function) -> tuple[str, str, str, int, str]:
    return function.name, function.module, function.kind, function.build, function.file
