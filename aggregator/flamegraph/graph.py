"""Frames folded to functions, as columns: one node a function and path. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aggregator.flamegraph.chains import Chains
from aggregator.profiles.dictionary import Dictionary
from aggregator.profiles.frame_table import Function
from aggregator.profiles.grouping import Floats, Ints, group
from aggregator.profiles.prefix_tree import Level
from aggregator.workers import checkpoint

ALL = Function("all", "", "process")
OTHER = Function("(other)", "", "other")
ALL_CODE = 0
OTHER_CODE = 1
_FIRST_SERVICE_CODE = 2


@dataclass(frozen=True, eq=False)
class Folded:
    """A graph before its functions are looked up; `code` counts root, other, services, functions.

    Nodes come level by level, below each parent side by side, until `prune` took some out. `square`
    and `self_square` are the sums of the squared weights of the samples in `total` and `self_`.
    `unnamed_share` is the share of frames without a symbol, weighted by time. `frame` is the number
    of each node's heaviest frame (0 for none), `position` the node's place in that frame's chain of
    inlining. `cut_nodes` were pruned into "(other)" children.
    """

    services: Sequence[str]
    code: Ints
    parent: Ints
    total: Ints
    self_: Ints
    square: Floats
    self_square: Floats
    level: Ints
    unnamed_share: float
    frame: Ints
    position: Ints
    cut_nodes: int = 0

    @property
    def shift(self) -> int:
        """The code of the dictionary's first function."""
        return _FIRST_SERVICE_CODE + len(self.services)

    def level_starts(self) -> list[int]:
        """The first node of each level, before any was pruned."""
        levels = np.arange(int(self.level[-1]) + 1)
        return [int(start) for start in np.searchsorted(self.level, levels)]

    def function_of(self, code: int, functions: Sequence[Function]) -> Function:
        """What a code means; `functions` are the dictionary's."""
        if code == ALL_CODE:
            return ALL
        if code == OTHER_CODE:
            return OTHER
        if code < self.shift:
            return Function(self.services[code - _FIRST_SERVICE_CODE], "", "process")
        return functions[code - self.shift]


def fold(levels: list[Level], services: Sequence[str], dictionary: Dictionary) -> Folded:
    """Merge frames to functions: root, then one node a service, then the levels of the tree.

    The groups of `levels` are indexes into `services`. A frame that stands for several functions,
    because one was inlined into the other, becomes as many nodes.
    """
    shift = _FIRST_SERVICE_CODE + len(services)
    by_service, square = np.zeros(len(services), np.int64), np.zeros(len(services))
    if levels:
        np.add.at(by_service, levels[0].parent, levels[0].total)
        np.add.at(square, levels[0].parent, levels[0].square)
    nothing, no_square = np.zeros(len(services), np.int64), np.zeros(len(services))
    zero, codes = np.zeros(1, np.int64), _FIRST_SERVICE_CODE + np.arange(len(services))
    whole, whole_square = by_service.sum(keepdims=True), square.sum(keepdims=True)
    columns: list[tuple[Any, ...]] = [
        (np.array([ALL_CODE]), zero - 1, whole, zero, whole_square, np.zeros(1), zero, zero),
        (codes, nothing, by_service, nothing, square, no_square, nothing, nothing),
    ]
    size = 1 + len(services)
    chains = Chains(levels, dictionary)
    for depth in range(chains.depth):
        checkpoint()
        rows = chains.rows_at(depth)
        merged = group((rows.above << 32) | (shift + rows.function))
        heaviest = merged.heaviest(rows.total)
        columns.append(
            (
                merged.keys & 0xFFFFFFFF,
                merged.keys >> 32,
                merged.sums(rows.total),
                merged.sums(rows.self_),
                merged.sums(rows.square),
                merged.sums(rows.self_square),
                rows.frame[heaviest],
                rows.position[heaviest],
            )
        )
        chains.put(size + merged.index)
        size += len(merged.keys)
    code, parent, total, self_, square, self_square, frame, position = (
        np.concatenate(column) for column in zip(*columns, strict=True)
    )
    return Folded(
        *(services, code, parent, total, self_, square, self_square),
        np.repeat(np.arange(len(columns)), [len(column[0]) for column in columns]),
        _unnamed_share(levels, dictionary),
        *(frame, position),
    )


def _unnamed_share(levels: list[Level], dictionary: Dictionary) -> float:
    unnamed = everything = 0.0
    for level in levels:
        weights = level.total.astype(np.float64)
        everything += float(weights.sum())
        frames = dictionary.tree.frames_of(level.nodes)
        unnamed += float(weights[dictionary.frames.unnamed(frames)].sum())
    return unnamed / everything if everything else 0.0
