"""Extents of one large array that is made of shards: who has which entries. Pure.

First fit from the low end, so that only as many shards exist as are needed. What is given back can
still be read by a sample in flight, so it is allotted again only after a grace.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple


class Extent(NamedTuple):
    """`length` entries from index `first` on."""

    first: int
    length: int

    @property
    def end(self) -> int:
        return self.first + self.length


class Arena:
    """Entries 0 to `limit`, in shards of `shard` entries; an extent may cross shards.

    Times are seconds of any clock that only goes forward.
    """

    def __init__(self, shard: int, limit: int, grace_s: float) -> None:
        if shard < 1 or limit < 0:
            raise ValueError(f"{limit} entries in shards of {shard}")
        self.shard = shard
        self.limit = limit
        self.used = 0  # entries, those in their grace included
        self.shards = 0  # how many exist: shards 0 to this - 1
        self._grace_s = grace_s
        self._free = [Extent(0, limit)] if limit else []  # by index, never adjacent
        self._retired: deque[tuple[float, Extent]] = deque()

    def allocate(self, count: int) -> Extent | None:
        """The lowest `count` entries in a row; None where there is no room."""
        if count < 1:
            raise ValueError(f"an extent of {count} entries")
        position = next((n for n, free in enumerate(self._free) if free.length >= count), None)
        if position is None:
            return None
        free = self._free[position]
        if free.length == count:
            del self._free[position]
        else:
            self._free[position] = Extent(free.first + count, free.length - count)
        self.used += count
        extent = Extent(free.first, count)
        self.shards = max(self.shards, -(-extent.end // self.shard))
        return extent

    def retire(self, extent: Extent, now_s: float) -> None:
        """Give an extent back; it is free once the grace has passed."""
        self._retired.append((now_s + self._grace_s, extent))

    def reclaim(self, now_s: float) -> bool:
        """Free what was retired long enough ago; whether there was any."""
        freed = False
        while self._retired and self._retired[0][0] <= now_s:
            self._release(self._retired.popleft()[1])
            freed = True
        return freed

    def trim(self) -> int:
        """Count off the shards at the high end that nothing lies in; how many those are."""
        last = self._free[-1] if self._free else Extent(self.limit, 0)
        wanted = -(-last.first // self.shard) if last.end == self.limit else self.shards
        dropped = max(self.shards - wanted, 0)
        self.shards -= dropped
        return dropped

    @property
    def retired(self) -> int:
        """Entries in their grace."""
        return sum(extent.length for _, extent in self._retired)

    def fits(self, count: int) -> bool:
        """Whether `count` entries in a row are free now."""
        return any(free.length >= count for free in self._free)

    def could_hold(self, count: int, besides: Iterable[Extent] = ()) -> bool:
        """Whether `count` entries in a row are free once the grace is over, and those of `besides`
        given back."""
        spans = sorted([*self._free, *(extent for _, extent in self._retired), *besides])
        reach = start = 0
        for span in spans:
            if span.first != reach:
                start = span.first
            reach = span.end
            if reach - start >= count:
                return True
        return False

    def _release(self, extent: Extent) -> None:
        self.used -= extent.length
        position = bisect_left(self._free, extent)
        first, end = extent.first, extent.end
        if position < len(self._free) and self._free[position].first == end:
            end = self._free.pop(position).end
        if position > 0 and self._free[position - 1].end == first:
            position -= 1
            first = self._free.pop(position).first
        self._free.insert(position, Extent(first, end - first))
