"""Keeps the spool within its bytes and age, and says what is in it."""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from node_agent.errors import SpoolError
from node_agent.spool.entries import BATCH, DEFINITIONS, Stored, choose_doomed
from node_agent.spool.folder import Folder

RESCAN_S = 300.0
ORPHAN_S = 600.0  # definitions without their batch: longer than any put takes


class Usage(NamedTuple):
    """What is in the spool. `oldest_s` is the age of the oldest batch, 0 without batches."""

    batches: int
    extracts: int
    refused: int
    bytes: int
    oldest_s: float


class Bounds:
    """Limits over the folders of batches, extracts and refused batches."""

    def __init__(
        self,
        batches: Folder,
        extracts: Folder,
        refused: Folder,
        limit_bytes: int,
        limit_age_s: float,
        dropped: Counter[str],
    ) -> None:
        self._batches, self._extracts, self._refused = batches, extracts, refused
        self._limit_bytes, self._limit_age_s = limit_bytes, limit_age_s
        self._dropped = dropped
        self._estimate_bytes = 0
        self._oldest_s = 0.0  # Unix time
        self._scanned_at_s = float("-inf")  # monotonic

    def add(self, size: int) -> None:
        """`size` more bytes are in the spool."""
        self._estimate_bytes += size

    def make_room(self, size: int) -> None:
        """Drop the oldest until `size` more bytes fit, and what is too old.

        The folders are listed only when the running estimate says that they may be too full or
        too old, and now and then: during a day without the centre they hold thousands of files,
        and listing them for every batch would cost more than sampling.
        """
        now_s = time.time()
        fresh = time.monotonic() - self._scanned_at_s < RESCAN_S
        young = not self._oldest_s or now_s - self._oldest_s <= self._limit_age_s
        if fresh and young and self._estimate_bytes + size <= self._limit_bytes:
            return
        files = self.scan()
        limit = self._limit_bytes - size
        if self._estimate_bytes > limit:
            limit = max(0, limit - self._limit_bytes // 32)  # room for the next ones too
        self._drop(files, limit)

    def trim_refused(self, limit_bytes: int) -> None:
        """Keep the newest refused batches, at most `limit_bytes`; these were counted before."""
        files = self._refused.files()
        for file, _reason in choose_doomed(files, limit_bytes, self._limit_age_s, time.time()):
            self._refused.remove(file.name)

    def has_room_for_extract(self, size: int) -> bool:
        """Whether an extract fits without displacing anything, within half of the spool."""
        files = self.scan()
        held = sum(file.bytes for file in files if file.folder == self._extracts.name)
        room = self._limit_bytes - self._estimate_bytes
        return held + size <= self._limit_bytes // 2 and size <= room

    def usage(self) -> Usage:
        """What is in the spool, counted anew."""
        files = self.scan()
        batches = [file for file in files if file.folder == self._batches.name]
        finished_s = [file.modified_s for file in batches if file.name.endswith(BATCH)]
        return Usage(
            batches=len(finished_s),
            extracts=sum(file.folder == self._extracts.name for file in files),
            refused=sum(file.folder == self._refused.name for file in files),
            bytes=sum(file.bytes for file in files),
            oldest_s=max(0.0, time.time() - min(finished_s)) if finished_s else 0.0,
        )

    def scan(self) -> Sequence[Stored]:
        """Every counted file; removes definitions whose batch never came or is gone."""
        files = self._batches.files()
        batches = {file.name for file in files if file.name.endswith(BATCH)}
        now_s = time.time()
        kept = []
        for file in files:
            alone = file.name.endswith(DEFINITIONS) and (
                file.name.removesuffix(DEFINITIONS) + BATCH not in batches
            )
            if alone and now_s - file.modified_s > ORPHAN_S:
                with suppress(SpoolError):  # a read-only disk can still be counted
                    self._batches.remove(file.name)
            else:
                kept.append(file)
        kept += self._extracts.files() + self._refused.files()
        for folder in (self._batches, self._extracts, self._refused):
            if folder.foreign:
                self._dropped["foreign_file"] += folder.foreign
                folder.foreign = 0
        self._oldest_s = min((file.modified_s for file in kept), default=0.0)
        self._estimate_bytes = sum(file.bytes for file in kept)
        self._scanned_at_s = time.monotonic()
        return kept

    def _drop(self, files: Sequence[Stored], limit_bytes: int) -> None:
        folders = {folder.name: folder for folder in (self._batches, self._extracts, self._refused)}
        doomed = choose_doomed(files, limit_bytes, self._limit_age_s, time.time())
        for file, reason in doomed:
            if folders[file.folder].remove(file.name):
                self._estimate_bytes -= file.bytes
                # Definitions go with their batch; a refused batch was counted when refused.
                if not file.name.endswith(DEFINITIONS) and file.folder != self._refused.name:
                    self._dropped[reason] += 1
        left = set(files).difference(file for file, _reason in doomed)
        self._oldest_s = min((file.modified_s for file in left), default=0.0)
