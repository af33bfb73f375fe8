"""Definitions of the stacks that are new in this run: which are due, and their message."""

from array import array

from node_agent.generations import GenerationCache
from node_agent.symbols.modules import ModuleRegistry
from wire.limits import MAX_DEFINITION_FRAMES, MAX_STACK_FRAMES
from wire.schema import Definitions, Module, ModuleKind, Name

# Definitions of one batch: beyond this they would not fit the message's decoded size.
MAX_PENDING_FRAMES = min(MAX_DEFINITION_FRAMES, 2_000_000)
_FRAME_BYTES = 16


class DefinitionBook:
    """Which stacks were defined in this run, and those to define with the next batch.

    `deferred` counts definitions that had no room; they come when the stack is seen again.
    """

    def __init__(self, limit: int) -> None:
        self.deferred = 0
        self._known: GenerationCache[bytes, bool] = GenerationCache(limit)
        self._pending: dict[bytes, bytes] = {}
        self._pending_bytes = 0

    def knows(self, stack_hash: bytes) -> bool:
        """Whether `stack_hash` is defined already or will be with the next batch."""
        return self._known.get(stack_hash) is not None

    def add(self, stack_hash: bytes, packed: bytes) -> None:
        """Define a stack with the next batch; `packed` holds its frames, 16 bytes each."""
        if self._pending_bytes + len(packed) > MAX_PENDING_FRAMES * _FRAME_BYTES:
            self.deferred += 1
            return
        self._known.put(stack_hash, True)
        self._pending[stack_hash] = packed
        self._pending_bytes += len(packed)

    def forget(self, hashes: list[bytes]) -> None:
        """Define these stacks again when they are seen next."""
        for stack_hash in hashes:
            self._known.remove(stack_hash)

    def rotate(self) -> None:
        """Forget stacks that were not seen since the last call: they are defined again."""
        self._known.rotate()

    def take(self) -> dict[bytes, bytes]:
        """The packed stacks by their hash that go with this batch."""
        pending, self._pending, self._pending_bytes = self._pending, {}, 0
        return pending


def build_definitions(
    node: str, run: bytes, stacks: dict[bytes, bytes], registry: ModuleRegistry
) -> Definitions | None:
    """The message that defines `stacks` (hash to packed frames); None when there are none."""
    if not stacks:
        return None
    modules: list[Module] = []
    module_rows: dict[int, int] = {}
    names: list[Name] = []
    name_rows: dict[int, int] = {}
    frame_rows: dict[bytes, int] = {}
    frame_module, frame_offset = array("I"), array("Q")
    lengths, stack_frames = array("H"), array("I")
    for packed in stacks.values():
        lengths.append(min(len(packed) // _FRAME_BYTES, MAX_STACK_FRAMES))
        for position in range(0, len(packed), _FRAME_BYTES):
            frame = packed[position : position + _FRAME_BYTES]
            row = frame_rows.get(frame)
            if row is None:
                row = frame_rows[frame] = len(frame_rows)
                hash64 = int.from_bytes(frame[:8], "little")
                offset = int.from_bytes(frame[8:], "little")
                module = registry.modules[hash64]
                if hash64 not in module_rows:
                    module_rows[hash64] = len(modules)
                    modules.append(module)
                if module.kind == ModuleKind.NAMED:
                    if offset not in name_rows:
                        name_rows[offset] = len(names)
                        names.append(registry.names[offset])
                    offset = name_rows[offset]
                frame_module.append(module_rows[hash64])
                frame_offset.append(offset)
            stack_frames.append(row)
    return Definitions(
        node,
        run,
        modules,
        names,
        frame_module.tobytes(),
        frame_offset.tobytes(),
        b"".join(stacks),
        lengths.tobytes(),
        stack_frames.tobytes(),
    )
