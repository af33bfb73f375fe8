"""Sums of counts by (number, rate) and id, column by column, in memory bounded by what is distinct.
Pure."""

import numpy as np

from aggregator.profiles.blob_columns import Heads, Part
from aggregator.profiles.codec import Section
from aggregator.profiles.errors import BlobError, TooMuchError
from aggregator.profiles.grouping import Ints

MOST_DISTINCT = 2_000_000  # 24 bytes each, several times while they are summed
_SUM_AT_ROWS = 500_000
_DENSE = 8  # sorting costs more than summing over so many places a row
_EXACT = 2.0**53  # doubles are, up to there


class ColumnSums:
    """Adds up parts of blobs. Raises TooMuchError beyond MOST_DISTINCT distinct rows."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, int], int] = {}
        self._parts: list[tuple[Ints, Ints, Ints]] = []
        self._rows = 0

    def add(self, heads: Heads, part: Part) -> None:
        """Add a part of the blobs with these heads."""
        keys = list(
            zip(
                heads.series[part.sections].tolist(),
                heads.rate[part.sections].tolist(),
                strict=True,
            )
        )
        numbers = self._numbers
        of_section = np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
        of_row = np.repeat(of_section, np.diff(part.rows))
        self._parts.append((of_row, part.ids, part.counts))
        self._rows += len(part.ids)
        if self._rows > _SUM_AT_ROWS:
            self._sum()
            # What is left is distinct: summing again pays only after as much has come anew.
            self._rows //= 2

    def sections(self) -> list[Section]:
        """What was added, one section a (number, rate), in that order."""
        self._sum()
        if not self._parts:
            return []
        of_row, ids, counts = self._parts[0]
        found = []
        for key, number in sorted(self._numbers.items()):
            first, last = np.searchsorted(of_row, [number, number + 1])
            if first < last:
                found.append(Section(*key, ids[first:last], counts[first:last]))
        return found

    def _sum(self) -> None:
        if not self._parts:
            return
        of_row, ids, counts = (
            np.concatenate(columns) for columns in zip(*self._parts, strict=True)
        )
        if len(ids):
            of_row, ids, counts = _sum_rows(of_row, ids, counts)
        if len(ids) > MOST_DISTINCT:
            raise TooMuchError(f"more than {MOST_DISTINCT} distinct stacks of series answer this")
        self._parts = [(of_row, ids, counts)]
        self._rows = len(ids)


def _sum_rows(of_row: Ints, ids: Ints, counts: Ints) -> tuple[Ints, Ints, Ints]:
    """The same columns with one row a (number, id), in that order."""
    total = float(counts.sum(dtype=np.float64))
    if total >= 2.0**63:
        raise BlobError("the counts add up to more than 63 bits")
    least = int(ids.min())
    width = int(ids.max()) - least + 1
    places = int(of_row.max() + 1) * width
    if places < _DENSE * len(ids) and total < _EXACT:
        sums = np.bincount(of_row * width + (ids - least), weights=counts)
        distinct = np.flatnonzero(sums)
        return distinct // width, distinct % width + least, sums[distinct].astype(np.int64)
    order = np.lexsort((ids, of_row))
    of_row, ids = of_row[order], ids[order]
    is_first = np.ones(len(ids), bool)
    is_first[1:] = (of_row[1:] != of_row[:-1]) | (ids[1:] != ids[:-1])
    starts = np.flatnonzero(is_first)
    sums = np.add.reduceat(counts[order], starts)
    return of_row[starts], ids[starts], sums
