"""Batches that wait for a commit, taken from nodes in turn: no node waits for all that another one
has sent."""

import asyncio
from collections import OrderedDict, deque
from itertools import islice
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Items of nodes, each with its number of rows. For one event loop."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[int, deque[tuple[int, Item]]] = OrderedDict()  # by whose turn
        self._size = 0
        self.rows = 0
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return self._size

    def count_of(self, node_id: int) -> int:
        """How many items of the node wait."""
        return len(self._waiting.get(node_id, ()))

    def put(self, node_id: int, rows: int, item: Item) -> None:
        """Add the node's next item."""
        self._waiting.setdefault(node_id, deque()).append((rows, item))
        self._size += 1
        self.rows += rows
        self._news.set()

    async def take(self, most: int, most_rows: int) -> list[Item]:
        """The next items, one at least and at most `most`, one of each node: its next one is behind
        what others have then. They have at most `most_rows`, unless the first one alone has
        more."""
        while not self._size:
            self._news.clear()
            await self._news.wait()
        taken: list[Item] = []
        rows_taken = 0
        for node_id, items in list(islice(self._waiting.items(), most)):
            rows = items[0][0]
            if taken and rows_taken + rows > most_rows:
                break
            taken.append(self._pop(node_id, items))
            rows_taken += rows
        return taken

    def drain(self) -> list[Item]:
        """All of them."""
        return [self._pop(*next(iter(self._waiting.items()))) for _ in range(self._size)]

    def _pop(self, node_id: int, items: deque[tuple[int, Item]]) -> Item:
        rows, item = items.popleft()
        del self._waiting[node_id]
        if items:
            self._waiting[node_id] = items  # at the end: the others first
        self._size -= 1
        self.rows -= rows
        return item
