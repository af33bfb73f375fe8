"""The resident dictionary: stacks as a prefix tree, and what is known of their frames.

Pure: it says which rows it lacks, and `aggregator.profiles.loading` reads them. Defined stacks
never change, so they are read once; undefined ones are asked for again after RETRY_S, and frames as
`FrameTable` says, which is how late definitions and late symbols repair old flamegraphs.
"""

from datetime import datetime

import numpy as np

from aggregator.profiles.columns import SortedMap
from aggregator.profiles.frame_table import FrameTable
from aggregator.profiles.grouping import Ints
from aggregator.profiles.prefix_tree import REFUSED, UNDEFINED, PrefixTree

RETRY_S = 2.0
MAX_TREE_NODES = 3_000_000  # about 80 MB; beyond it the dictionary starts anew
MAX_TEXT_BYTES = 64 << 20  # of names and files


class Dictionary:
    """Stacks and frames that questions touched; not safe for several threads at once."""

    def __init__(self) -> None:
        self.tree = PrefixTree()
        self.frames = FrameTable()
        self.renamed_at: datetime | None = None  # the last upload that the frames' names heed
        self._absent = SortedMap()  # stack id -> UNDEFINED or REFUSED
        self._retry_at_s = -np.inf

    def is_full(self) -> bool:
        """Whether it should be replaced by a new one before the next question."""
        return len(self.tree) > MAX_TREE_NODES or self.frames.text_bytes > MAX_TEXT_BYTES

    def missing_stacks(self, stack_ids: Ints, now_s: float) -> list[int]:
        """Those of the distinct `stack_ids` that should be read; `now_s` is a monotonic clock."""
        if now_s >= self._retry_at_s:
            self._absent = SortedMap()
        missing = stack_ids[self.tree.leaves(stack_ids) < 0]
        ids: list[int] = missing[self._absent.find(missing) < 0].tolist()
        return ids

    def add_stacks(
        self, asked: list[int], rows: list[tuple[int, bytes | None]], now_s: float
    ) -> None:
        """Take rows (stack id, u32 frame ids root first, None where they were refused) that were
        read for the ids `asked`."""
        refused = [stack_id for stack_id, frames in rows if frames is None]
        rows = [(stack_id, frames) for stack_id, frames in rows if frames and len(frames) % 4 == 0]
        ids = np.fromiter((row[0] for row in rows), np.int64, len(rows))
        lengths = np.fromiter((len(row[1] or b"") // 4 for row in rows), np.int64, len(rows))
        frame_ids = np.frombuffer(b"".join(row[1] or b"" for row in rows), "<u4").astype(np.int64)
        self.tree.add(ids, lengths, self.frames.numbers(frame_ids))
        absent = np.setdiff1d(np.array(asked, np.int64), ids)
        absent = absent[self._absent.find(absent) < 0]
        if not len(self._absent):
            self._retry_at_s = now_s + RETRY_S
        self._absent.add(absent, np.where(np.isin(absent, refused), REFUSED, UNDEFINED))

    def leaves(self, stack_ids: Ints) -> Ints:
        """The tree's node of each stack; UNDEFINED or REFUSED for those without frames."""
        leaves = self.tree.leaves(stack_ids)
        without = np.flatnonzero(leaves < 0)
        leaves[without] = np.maximum(self._absent.find(stack_ids[without]), UNDEFINED)
        return leaves
