"""A pruned graph in the order in which it is drawn, its functions looked up. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from aggregator.flamegraph.graph import OTHER_CODE, Folded
from aggregator.profiles.frame_table import FrameTable, Function
from aggregator.profiles.grouping import Floats, Ints


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes as int64 columns, parents before children; node 0 is the root, its parent -1.

    `function` indexes `functions`, whose `codes` are those of the folded graph. `total` and `self_`
    are nanoseconds of CPU, a node's total is its self plus its children's totals; `square` is that
    of `Folded`. `cut_nodes` were pruned into "(other)" children, which have `cut_ns`. `places` are
    file and line of each node, those of its heaviest frame; empty where not known.
    """

    functions: list[Function]
    codes: Ints
    function: Ints
    parent: Ints
    total: Ints
    self_: Ints
    square: Floats
    level: Ints
    cut_nodes: int = 0
    cut_ns: int = 0
    places: Sequence[tuple[str, int]] = ()


def arrange(
    folded: Folded,
    frames: FrameTable,
    listed: Collection[int] = (),
    groups: Sequence[Function] = (),
) -> Graph:
    """Breadth first, siblings side by side and sorted by function name.

    `frames` are the dictionary's, whose functions the codes of `folded` mean; `groups` follow them.
    The functions of the codes in `listed` are there too, drawn or not.
    """
    functions = [*frames.functions, *groups]
    codes = np.union1d(folded.code, np.array(sorted(listed), np.int64))
    named = [folded.function_of(code, functions) for code in codes.tolist()]
    by_name = sorted(range(len(named)), key=lambda i: _sort_key(named[i]))
    rank = np.empty(len(named), np.int64)
    rank[by_name] = np.arange(len(named))
    function = rank[np.searchsorted(codes, folded.code)]
    old = _breadth_first(folded, function)
    number = np.empty(len(old), np.int64)
    number[old] = np.arange(len(old))
    return Graph(
        [named[i] for i in by_name],
        codes[by_name],
        function[old],
        np.append([-1], number[folded.parent[old[1:]]]),
        folded.total[old],
        folded.self_[old],
        folded.square[old],
        folded.level[old],
        folded.cut_nodes,
        int(folded.total[folded.code == OTHER_CODE].sum()),
        [
            frames.line_at(frame, place) if frame else ("", 0)
            for frame, place in zip(
                folded.frame[old].tolist(), folded.position[old].tolist(), strict=True
            )
        ],
    )


def _breadth_first(folded: Folded, function: Ints) -> Ints:
    """The nodes in their new order."""
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
    return np.concatenate(order)


def _sort_key(function: Function) -> tuple[str, str, str, str, str]:
    return function.name, function.module, function.kind, function.build, function.file
