"""Frames that stand for several functions, unfolded: one level of the tree becomes as many as the
longest chain of inlining on it. Pure.

The levels that come out are filled from the outermost on, so that a function that was inlined and
the same one called are one node. What is not inlined passes through without a row more.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from aggregator.profiles.dictionary import Dictionary
from aggregator.profiles.grouping import Floats, Ints
from aggregator.profiles.prefix_tree import Level


@dataclass(frozen=True, eq=False)
class Rows:
    """What stands on one level: the number of the node `above` that `put` gave, or the service's on
    the first; `function` and its frame, at `position` of the frame's chain; the weights and their
    squares."""

    above: Ints
    function: Ints
    frame: Ints
    position: Ints
    total: Ints
    self_: Ints
    square: Floats
    self_square: Floats


@dataclass(eq=False)
class _Unfolded:
    """A level of the tree: the rows' frames, the depths they begin and end at, and the node where
    each row has got to."""

    level: Level
    frame: Ints
    start: Ints
    end: Ints
    node: Ints
    first: int
    last: int


class Chains:
    """The levels of a tree, to be read from depth 0 on: `rows_at`, then `put` their nodes."""

    def __init__(self, levels: list[Level], dictionary: Dictionary) -> None:
        self._frames = dictionary.frames
        self._levels: list[_Unfolded] = []
        self._taken: list[tuple[_Unfolded, Ints]] = []
        above_end = np.full(0, -1)
        for number, level in enumerate(levels):
            frame = dictionary.tree.frames_of(level.nodes)
            start = above_end[level.parent] + 1 if number else np.zeros(len(frame), np.int64)
            end = start + self._frames.chain_lengths(frame)
            first, last = (int(start.min()), int(end.max())) if len(frame) else (0, -1)
            node = np.zeros(len(frame), np.int64)
            self._levels.append(_Unfolded(level, frame, start, end, node, first, last))
            above_end = end
        self.depth = 1 + max((each.last for each in self._levels), default=-1)

    def rows_at(self, depth: int) -> Rows:
        """The rows of the level `depth`, counted from 0 below the services."""
        self._taken = []
        parts: list[tuple[Any, ...]] = []
        for number, each in enumerate(self._levels):
            if not each.first <= depth <= each.last:
                continue
            rows = np.flatnonzero((each.start <= depth) & (depth <= each.end))
            begins = each.start[rows] == depth
            parents = each.level.parent[rows]
            outer = self._levels[number - 1].node[parents] if number else 1 + parents
            ends = each.end[rows] == depth
            position = depth - each.start[rows]
            frame = each.frame[rows]
            parts.append(
                (
                    np.where(begins, outer, each.node[rows]),
                    self._frames.functions_at(frame, position),
                    frame,
                    position,
                    each.level.total[rows],
                    np.where(ends, each.level.self_[rows], 0),
                    each.level.square[rows],
                    np.where(ends, each.level.self_square[rows], 0.0),
                )
            )
            self._taken.append((each, rows))
        return Rows(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def put(self, nodes: Ints) -> None:
        """Say which node each of the rows just read became."""
        done = 0
        for each, rows in self._taken:
            each.node[rows] = nodes[done : done + len(rows)]
            done += len(rows)
