"""Sums by key over int64 columns: exact, unlike `bincount`, whose weights are doubles."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Numbers = TypeVar("Numbers", Ints, Floats)


@dataclass(frozen=True, eq=False)
class Groups:
    """The distinct `keys` (sorted) of a column, and for each of its rows the `index` of its key."""

    keys: Ints
    index: Ints
    _order: Ints
    _starts: Ints

    def sums(self, column: Numbers) -> Numbers:
        """For each key the sum of `column`, which has the rows of the grouped column."""
        if not len(self.keys):
            return column[:0]
        sums: Numbers = np.add.reduceat(column[self._order], self._starts)
        return sums

    def heaviest(self, column: Ints) -> Ints:
        """For each key the first row with its highest value in `column`."""
        if not len(self.keys):
            return np.zeros(0, np.int64)
        highest = np.maximum.reduceat(column[self._order], self._starts)
        rows = np.flatnonzero(column == highest[self.index])[::-1]
        found: Ints = np.zeros(len(self.keys), np.int64)
        found[self.index[rows]] = rows  # of several the last assignment stays: the first row
        return found


def group(column: Ints) -> Groups:
    """The groups of equal values in `column` (n int64)."""
    order = np.argsort(column)
    ordered = column[order]
    first = np.ones(len(column), bool)
    first[1:] = ordered[1:] != ordered[:-1]
    index = np.empty(len(column), np.int64)
    index[order] = np.cumsum(first) - 1
    return Groups(ordered[first], index, order, np.flatnonzero(first))
