"""The spool itself: crash-safe, bounded by bytes and age, shared by two users of one group."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec

from node_agent.errors import SpoolError, SpoolFullError
from node_agent.spool import directives
from node_agent.spool.bounds import Bounds, Usage
from node_agent.spool.entries import (
    BATCH,
    DEFINITIONS,
    EXTRACT,
    SPOOL_FULL,
    BatchEntry,
    ExtractEntry,
    order,
    parse_batch_name,
    parse_extract_name,
)
from node_agent.spool.folder import Folder
from wire import limits
from wire.codec import decode, encode
from wire.schema import Batch, Definitions

DEFAULT_LIMIT_BYTES = 256 << 20
DEFAULT_LIMIT_AGE_S = 86_400.0
REFUSED_LIMIT_BYTES = 4 << 20
_MAX_DIRECTIVES = 256
_MAX_DIRECTIVE_BYTES = 256 << 10
_MAX_TAKEN_BYTES = 1 << 20  # read in one go; the rest waits for the next
_MAX_STATUS_BYTES = 1 << 20
_STATUS_BYTES = 8 << 10  # at least
# Of reading JSON that the other side wrote; nesting beyond the interpreter's limit is the last.
_MALFORMED = (SpoolError, msgspec.MsgspecError, ValueError, RecursionError)


class PutResult(NamedTuple):
    """What a put did: whether the thing is in the spool, and what had to go for it."""

    stored: bool
    bytes: int
    dropped: dict[str, int]


class Spool:
    """The spool at `root`. One object a process and thread; `create()` comes first.

    `dropped` counts, by reason, what this process had to give up since it started. Every method
    raises SpoolError or a subclass (full disk, read-only file system, no access).
    """

    def __init__(
        self,
        root: Path,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
        limit_age_s: float = DEFAULT_LIMIT_AGE_S,
    ) -> None:
        self.root = root
        self.limit_bytes = limit_bytes
        self.limit_age_s = limit_age_s
        self.dropped: Counter[str] = Counter()

    def create(self) -> None:
        """Open the folders, make the missing ones, and remove what a crash left unfinished."""
        self._batches = Folder(self.root, "batches")
        self._extracts = Folder(self.root, "extracts")
        self._directives = Folder(self.root, "directives")
        self._refused = Folder(self.root, "refused")
        self._status = Folder(self.root, "status")
        self._directives.files()
        self._status.files()
        self._bounds = Bounds(
            self._batches,
            self._extracts,
            self._refused,
            self.limit_bytes,
            self.limit_age_s,
            self.dropped,
        )
        self._bounds.scan()

    def watch(self) -> bool:
        """From now on this process gets SIGIO, for which it must have a handler, when there is
        something new to deliver. False where the file system or the kernel can't tell."""
        try:
            self._batches.watch()
            self._extracts.watch()
        except SpoolError:
            return False
        return True

    # batches

    def put_batch(self, batch: Batch, definitions: Definitions | None) -> PutResult:
        """Store `batch` and its definitions durably; the oldest go when there is no room."""
        entry = BatchEntry(batch.run.hex(), batch.sequence)
        body = encode(batch)
        definitions_body = encode(definitions) if definitions is not None else b""
        size = len(body) + len(definitions_body)
        before = self.dropped.copy()
        if size > self.limit_bytes:
            self.dropped[SPOOL_FULL] += 1
            return PutResult(False, size, dict(self.dropped - before))
        try:
            self._bounds.make_room(size)
            if len(definitions_body) > limits.MAX_DEFINITIONS_BYTES:
                self.dropped["definitions_too_large"] += 1  # asked for again, stack by stack
            elif definitions_body:
                self._batches.write(entry.stem + DEFINITIONS, definitions_body)
            self._batches.write(entry.stem + BATCH, body)
        except SpoolError:
            self.dropped["disk_error"] += 1
            with suppress(SpoolError):
                self._batches.remove(entry.stem + DEFINITIONS)
            raise
        self._bounds.add(size)
        return PutResult(True, size, dict(self.dropped - before))

    def pending(self) -> list[BatchEntry]:
        """Batches to deliver, in the order of delivery."""
        names = self._batches.names()
        entries = [
            entry
            for name in names
            if name.endswith(BATCH) and (entry := parse_batch_name(name)) is not None
        ]
        first: dict[str, BatchEntry] = {}
        for entry in entries:
            if entry.run not in first or entry.sequence < first[entry.run].sequence:
                first[entry.run] = entry
        started = {
            run: self._batches.modified_s(entry.stem + BATCH) or 0.0 for run, entry in first.items()
        }
        return order(entries, started)

    def open_batch(self, entry: BatchEntry) -> BinaryIO | None:
        """The encoded batch as a file; None when it was dropped meanwhile."""
        return self._batches.open(entry.stem + BATCH, limits.MAX_BATCH_BYTES)

    def read_definitions(self, entry: BatchEntry) -> Definitions | None:
        """Definitions stored with the batch; None when there are none.

        Raises wire.errors.WireError when the file does not decode.
        """
        data = self._batches.read(entry.stem + DEFINITIONS, limits.MAX_DEFINITIONS_BYTES)
        return None if data is None else decode(data, Definitions)

    def done(self, entry: BatchEntry | ExtractEntry) -> None:
        """Delivered: remove it. The batch goes before its definitions, so that a crash between
        leaves definitions without a batch (cleaned up), not a batch without definitions."""
        if isinstance(entry, ExtractEntry):
            self._extracts.remove(entry.stem + EXTRACT)
            return
        self._batches.remove(entry.stem + BATCH)
        self._batches.remove(entry.stem + DEFINITIONS)

    def refuse(self, entry: BatchEntry | ExtractEntry, reason: str) -> None:
        """Refused for good: a batch is set aside in refused/ (bounded, for people to look at),
        an extract removed; counted under `reason`."""
        self.dropped[reason] += 1
        if isinstance(entry, BatchEntry) and self._batches.move(entry.stem + BATCH, self._refused):
            self._bounds.trim_refused(REFUSED_LIMIT_BYTES)
        self.done(entry)

    # symbol extracts

    def put_extract(self, encoded: bytes, build_id: bytes, module_kind: int) -> PutResult:
        """Store an encoded SymbolExtract. It never displaces batches: the centre asks again."""
        entry = ExtractEntry(build_id.hex(), module_kind)
        size = len(encoded)
        if not self._bounds.has_room_for_extract(size):
            self.dropped["extract_no_room"] += 1
            return PutResult(False, size, {"extract_no_room": 1})
        self._extracts.write(entry.stem + EXTRACT, encoded)
        self._bounds.add(size)
        return PutResult(True, size, {})

    @contextmanager
    def writing_extract(self, build_id: bytes, module_kind: int) -> Iterator[int]:
        """A descriptor for a child to write an encoded SymbolExtract to, so that it never passes
        through this process; stored when the block ends without an error."""
        entry = ExtractEntry(build_id.hex(), module_kind)
        with self._extracts.writing(entry.stem + EXTRACT) as descriptor:
            yield descriptor

    def pending_extracts(self) -> list[ExtractEntry]:
        """Extracts to deliver, in the order of their names."""
        return sorted(filter(None, map(parse_extract_name, self._extracts.names())))

    def open_extract(self, entry: ExtractEntry) -> BinaryIO | None:
        """The encoded extract as a file; None when it was dropped meanwhile."""
        return self._extracts.open(entry.stem + EXTRACT, limits.MAX_EXTRACT_BYTES)

    # directives

    def put_directive(self, directive: dict[str, Any]) -> None:
        """Pass an order of the centre on to the sampler; the same order twice is one file."""
        name = directives.file_name(directive, time.time_ns())
        names = self._directives.names()
        if name not in names and len(names) >= _MAX_DIRECTIVES:
            self.dropped["directives_full"] += 1
            return
        # Not worth a flush to the disk: the centre repeats what was not done.
        self._directives.write(name, msgspec.json.encode(directive), durable=False)

    def take_directives(self) -> list[dict[str, Any]]:
        """Orders not seen yet, each given out once; what is no known order is counted.

        What they look like: `node_agent.spool.directives`.
        """
        taken = []
        left = _MAX_TAKEN_BYTES
        for name in sorted(self._directives.names())[:_MAX_DIRECTIVES]:
            if left <= 0:
                break
            try:
                data = self._directives.read(name, _MAX_DIRECTIVE_BYTES) or b""
                left -= len(data)
                directive = directives.check(msgspec.json.decode(data)) if data else None
                # What cannot be removed would come again and again: it is not obeyed.
                if self._directives.remove(name) and directive is not None:
                    taken.append(directive)
            except _MALFORMED:
                self.dropped["directive_malformed"] += 1
                with suppress(SpoolError):
                    self._directives.remove(name)
        return taken

    # status

    def write_status(self, name: str, status: dict[str, Any]) -> None:
        """Replace what the process `name` ("sampler", "shipper") says about itself."""
        data = msgspec.json.encode(status)
        try:
            # Room for the words about a full disk, which have to fit when it is full.
            self._status.write(f"{name}.json", data.ljust(_STATUS_BYTES), durable=False)
        except SpoolFullError:
            if not self._status.overwrite(f"{name}.json", data):
                raise

    def read_status(self, name: str, limit_bytes: int = _MAX_STATUS_BYTES) -> dict[str, Any] | None:
        """What the process `name` said last; None when there is nothing readable."""
        try:
            data = self._status.read(f"{name}.json", limit_bytes)
            return None if data is None else msgspec.json.decode(data, type=dict[str, Any])
        except _MALFORMED:
            return None

    # bounds

    def usage(self) -> Usage:
        """What is in the spool, counted anew."""
        return self._bounds.usage()

    def usage_bytes(self) -> int:
        """Bytes of all batches, definitions, extracts and refused batches, counted anew."""
        return self._bounds.usage().bytes
