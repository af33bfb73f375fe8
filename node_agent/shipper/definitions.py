"""Choose, from the definitions stored with a batch, exactly those that the centre wants. Pure."""

from array import array
from collections.abc import Iterator
from itertools import islice

from wire.codec import encode
from wire.errors import MalformedError
from wire.packed import Stack, pack
from wire.schema import Definitions, Module, ModuleKind, Name
from wire.validate import check_definitions

STACKS_PER_MESSAGE = 4096  # about 200 KB: bounds what both sides hold at once
HASH_BYTES = 16


def split_hashes(hashes: bytes) -> list[bytes]:
    """The 16-byte hashes packed in `hashes`. Raises MalformedError."""
    if len(hashes) % HASH_BYTES:
        raise MalformedError(f"{len(hashes)} bytes of hashes are not a multiple of {HASH_BYTES}")
    return [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]


def missing(definitions: Definitions | None, wanted: list[bytes]) -> list[bytes]:
    """The wanted hashes that `definitions` does not hold, in their order."""
    held = set(split_hashes(definitions.stack_hashes)) if definitions is not None else set()
    return [stack_hash for stack_hash in wanted if stack_hash not in held]


def select(
    definitions: Definitions,
    wanted: list[bytes],
    stacks_per_message: int = STACKS_PER_MESSAGE,
) -> Iterator[list[Stack]]:
    """The wanted stacks of `definitions`, as many at a time as go into a message.

    Raises MalformedError when the columns of `definitions` do not fit together.
    """
    check_definitions(definitions)
    chosen = _find(definitions, set(wanted))
    while stacks := list(islice(chosen, stacks_per_message)):
        yield stacks


def encode_stacks(
    definitions: Definitions, stacks: list[Stack], *, packed: bool, ahead: bool
) -> bytes:
    """A message with these stacks and only what they refer to, in version 2 when `packed`.

    Raises MalformedError when the columns of `definitions` do not fit together.
    """
    try:
        if packed:
            return encode(pack(definitions, stacks, ahead=ahead))
        return encode(reduce(definitions, stacks))
    except IndexError as error:
        raise MalformedError("a column of the definitions points outside another") from error


def _find(definitions: Definitions, wanted: set[bytes]) -> Iterator[Stack]:
    frames = len(definitions.stack_frames) // 4
    start = 0
    for index, length in enumerate(array("H", definitions.stack_lengths)):
        at = index * HASH_BYTES
        stack_hash = definitions.stack_hashes[at : at + HASH_BYTES]
        if start + length > frames:
            raise MalformedError("the stacks have more frames than stack_frames")
        if stack_hash in wanted:
            yield Stack(stack_hash, start, start + length)
        start += length


def reduce(definitions: Definitions, stacks: list[Stack]) -> Definitions:
    """Definitions of these stacks and only what they refer to. Raises IndexError where a column
    points outside another."""
    old_frames = memoryview(definitions.stack_frames).cast("I")
    old_modules = memoryview(definitions.frame_module).cast("I")
    old_offsets = memoryview(definitions.frame_offset).cast("Q")
    frames: dict[int, int] = {}  # old index to new index, in order of first use; so for the others
    modules: dict[int, int] = {}
    names: dict[int, int] = {}
    stack_frames, lengths = array("I"), array("H")
    frame_module, frame_offset = array("I"), array("Q")
    for stack in stacks:
        lengths.append(stack.end - stack.start)
        for old in old_frames[stack.start : stack.end]:
            new = frames.setdefault(old, len(frames))
            stack_frames.append(new)
            if new < len(frame_module):
                continue
            module, offset = old_modules[old], old_offsets[old]
            if definitions.modules[module].kind == ModuleKind.NAMED:
                offset = names.setdefault(offset, len(names))
            frame_module.append(modules.setdefault(module, len(modules)))
            frame_offset.append(offset)
    kept_modules: list[Module] = [definitions.modules[old] for old in modules]
    kept_names: list[Name] = [definitions.names[old] for old in names]
    return Definitions(
        node=definitions.node,
        run=definitions.run,
        modules=kept_modules,
        names=kept_names,
        frame_module=frame_module.tobytes(),
        frame_offset=frame_offset.tobytes(),
        stack_hashes=b"".join(stack.hash for stack in stacks),
        stack_lengths=lengths.tobytes(),
        stack_frames=stack_frames.tobytes(),
    )
