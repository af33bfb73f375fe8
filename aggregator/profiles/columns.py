"""Columns that stay in memory and grow: arrays with room at the end, and sorted look-ups."""

from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from aggregator.profiles.grouping import Ints

Scalar = TypeVar("Scalar", bound=np.generic)


class Column(Generic[Scalar]):
    """An array to which rows are added; room doubles, so that adding n rows costs O(n)."""

    def __init__(self, dtype: type[Scalar]) -> None:
        self._room: NDArray[Scalar] = np.zeros(1024, dtype)
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    @property
    def values(self) -> NDArray[Scalar]:
        """The rows so far, as a view."""
        return self._room[: self._rows]

    def extend(self, rows: NDArray[Scalar]) -> None:
        """Add `rows` at the end."""
        end = self._rows + len(rows)
        if end > len(self._room):
            room = np.zeros(max(end, 2 * len(self._room)), self._room.dtype)
            room[: self._rows] = self.values
            self._room = room
        self._room[self._rows : end] = rows
        self._rows = end


class SortedMap:
    """A map from int64 keys to int32 values in two sorted columns: 12 bytes an entry.

    Adding moves every entry, so it is done in bulk.
    """

    def __init__(self) -> None:
        self._keys: Ints = np.zeros(0, np.int64)
        self._values: NDArray[np.int32] = np.zeros(0, np.int32)

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, keys: Ints) -> Ints:
        """The value of each key, -1 where there is none."""
        if not len(self._keys):
            return np.full(len(keys), -1, np.int64)
        places = np.searchsorted(self._keys, keys)
        places[places == len(self._keys)] = 0
        found = self._keys[places] == keys
        return np.where(found, self._values[places], np.int64(-1))

    def add(self, keys: Ints, values: Ints) -> None:
        """Add entries; the keys are distinct and not yet in the map."""
        order = np.argsort(keys)
        places = np.searchsorted(self._keys, keys[order])
        self._keys = np.insert(self._keys, places, keys[order])
        self._values = np.insert(self._values, places, values[order].astype(np.int32))
