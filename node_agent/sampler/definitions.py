"""Definitions of the stacks that are new in this run: which are due, and their message."""

import struct
from array import array
from collections.abc import Iterator
from typing import cast

from node_agent.generations import GenerationCache
from node_agent.symbols.modules import ModuleRegistry
from wire.fit import text_bytes
from wire.limits import MAX_TEXTS_BYTES
from wire.schema import Definitions, Module, ModuleKind, Name

# What is held until the batch is written costs memory three times over: an interval ends early
# where it has so much to define. What one reading of the ring buffer (2 MiB) adds still fits.
FULL_BYTES = 1536 << 10
MAX_PENDING_BYTES = FULL_BYTES + (4 << 20)
MAX_NAMES_BYTES = MAX_TEXTS_BYTES // 2  # of a message, which has other columns too
_FRAME = struct.Struct("16s")
_NUMBERS = struct.Struct("<QQ")


class DefinitionBook:
    """Which stacks were defined in this run, and those to define with the next batch.

    `deferred` counts definitions that had no room; they come when the stack is seen again.
    """

    def __init__(self, limit: int) -> None:
        self.deferred = 0
        self._known: GenerationCache[bytes, bool] = GenerationCache(limit)
        self._pending: dict[bytes, bytes] = {}
        self._pending_bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether the next batch should be made now."""
        return self._pending_bytes >= FULL_BYTES

    def knows(self, stack_hash: bytes) -> bool:
        """Whether `stack_hash` is defined already or will be with the next batch."""
        return self._known.get(stack_hash) is not None

    def add(self, stack_hash: bytes, packed: bytes) -> None:
        """Define a stack with the next batch; `packed` holds its frames, 16 bytes each."""
        if self._pending_bytes + len(packed) > MAX_PENDING_BYTES:
            self.deferred += 1
            return
        self._known.put(stack_hash, True)
        self._pending[stack_hash] = packed
        self._pending_bytes += len(packed)

    def defer(self, hashes: list[bytes]) -> None:
        """These had no room in the message."""
        self.deferred += len(hashes)
        self.forget(hashes)

    def forget(self, hashes: list[bytes]) -> None:
        """Define these stacks again when they are seen next."""
        for stack_hash in hashes:
            self._known.remove(stack_hash)

    def rotate(self) -> None:
        """Forget stacks that were not seen since the last call: they are defined again."""
        self._known.rotate()

    def __len__(self) -> int:
        """How many stacks are known to be defined."""
        return len(self._known)

    def take(self) -> dict[bytes, bytes]:
        """The packed stacks by their hash that go with this batch."""
        pending, self._pending, self._pending_bytes = self._pending, {}, 0
        return pending


def split_by_text(
    stacks: dict[bytes, bytes], registry: ModuleRegistry
) -> tuple[dict[bytes, bytes], list[bytes]]:
    """Of `stacks` (hash to packed frames) those whose names fit together in a message, and the
    hashes of the others. Where not all do, those with the least text come first: a process with
    names of kilobytes must not take the room of the others."""
    if registry.names_bytes <= MAX_NAMES_BYTES:
        return stacks, []
    names = {stack_hash: set(_names(packed, registry)) for stack_hash, packed in stacks.items()}
    sizes = {name: text_bytes(registry.names[name]) for held in names.values() for name in held}
    order = sorted(stacks, key=lambda stack_hash: sum(map(sizes.__getitem__, names[stack_hash])))
    taken: dict[bytes, bytes] = {}
    counted: set[int] = set()
    total = 0
    for stack_hash in order:
        new = names[stack_hash] - counted
        total += sum(map(sizes.__getitem__, new))
        if total > MAX_NAMES_BYTES:
            break
        counted |= new
        taken[stack_hash] = stacks[stack_hash]
    return taken, [stack_hash for stack_hash in stacks if stack_hash not in taken]


def _names(packed: bytes, registry: ModuleRegistry) -> Iterator[int]:
    """Hashes of the names in a stack."""
    for hash64, offset in _NUMBERS.iter_unpack(packed):
        if registry.modules[hash64].kind == ModuleKind.NAMED:
            yield offset


def build_definitions(
    node: str, run: bytes, stacks: dict[bytes, bytes], registry: ModuleRegistry
) -> Definitions | None:
    """The message that defines `stacks` (hash to packed frames); None when there are none."""
    if not stacks:
        return None
    table = _Frames(registry)
    lengths, stack_frames = array("H"), array("I")
    for packed in stacks.values():
        rows = [table.rows.get(frame) for (frame,) in _FRAME.iter_unpack(packed)]
        if None in rows:
            rows = [table.row(frame) for (frame,) in _FRAME.iter_unpack(packed)]
        lengths.append(len(rows))
        stack_frames.extend(cast("list[int]", rows))
    return Definitions(
        node,
        run,
        table.modules,
        table.names,
        table.frame_module.tobytes(),
        table.frame_offset.tobytes(),
        b"".join(stacks),
        lengths.tobytes(),
        stack_frames.tobytes(),
    )


class _Frames:
    """The message's tables of frames, modules and names, each entry once."""

    def __init__(self, registry: ModuleRegistry) -> None:
        self.rows: dict[bytes, int] = {}
        self.modules: list[Module] = []
        self.names: list[Name] = []
        self.frame_module = array("I")
        self.frame_offset = array("Q")
        self._registry = registry
        self._module_rows: dict[int, int] = {}
        self._name_rows: dict[int, int] = {}

    def row(self, frame: bytes) -> int:
        known = self.rows.get(frame)
        if known is not None:
            return known
        hash64 = int.from_bytes(frame[:8], "little")
        offset = int.from_bytes(frame[8:], "little")
        module = self._registry.modules[hash64]
        if hash64 not in self._module_rows:
            self._module_rows[hash64] = len(self.modules)
            self.modules.append(module)
        if module.kind == ModuleKind.NAMED:
            if offset not in self._name_rows:
                self._name_rows[offset] = len(self.names)
                self.names.append(self._registry.names[offset])
            offset = self._name_rows[offset]
        self.frame_module.append(self._module_rows[hash64])
        self.frame_offset.append(offset)
        row = self.rows[frame] = len(self.rows)
        return row
