"""Definitions of version 2 as those of version 1 that they stand for. Believes nothing; pure."""

from array import array
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

from wire import limits
from wire.errors import MalformedError, TooLargeError
from wire.hashes import definitions_check, module_hash, name_hash, pack_frame, stack_hash
from wire.packed import OFFSET_BYTES, PackedDefinitions
from wire.schema import Definitions, ModuleKind
from wire.short import CHECK_BYTES, from_planes

_INDEX_BYTES = 4
_OFFSETS = 2**64


class _Frames(NamedTuple):
    """Frame i is (`modules[i]`, `offsets[i]`)."""

    modules: "array[int]"
    offsets: "array[int]"


def unpack(packed: PackedDefinitions) -> Definitions:
    """The definitions, with the hashes that follow from their frames. Raises MalformedError or
    TooLargeError."""
    if len(packed.check) != CHECK_BYTES:
        raise MalformedError(f"check must have {CHECK_BYTES} bytes")
    _check_sizes(packed)
    frames = _frames(packed)
    hashed = _packed_frames(packed, frames)
    stack_frames, lengths, hashes = array("I"), array("H"), []
    for stack in _widen(packed, len(frames.offsets)):
        stack_frames.extend(stack)
        lengths.append(len(stack))
        hashes.append(stack_hash(b"".join([hashed[frame] for frame in stack])))
    if definitions_check(hashes) != packed.check:
        raise MalformedError("the frames of the stacks do not give the hashes that `check` is of")
    return Definitions(
        node=packed.node,
        run=packed.run,
        modules=list(packed.modules),
        names=list(packed.names),
        frame_module=frames.modules.tobytes(),
        frame_offset=frames.offsets.tobytes(),
        stack_hashes=b"".join(hashes),
        stack_lengths=lengths.tobytes(),
        stack_frames=stack_frames.tobytes(),
    )


def _check_sizes(packed: PackedDefinitions) -> None:
    """Before anything is made of them."""
    if any(not 0 <= module.kind < 256 for module in packed.modules):
        raise MalformedError("a module's kind is no byte, so its frames have no hash")
    stacks = len(packed.shared) // _INDEX_BYTES
    if stacks > limits.MAX_PACKED_STACKS:
        raise TooLargeError(
            f"{stacks} stacks in a message; at most {limits.MAX_PACKED_STACKS} are allowed"
        )
    counts = {
        "modules": len(packed.modules),
        "names": len(packed.names),
        "offsets": len(packed.offsets) // OFFSET_BYTES,
        "frames": len(packed.frames) // _INDEX_BYTES,
    }
    for field, count in counts.items():
        if count > limits.MAX_PACKED_FRAMES:
            raise TooLargeError(
                f"{count} {field} in a message; at most {limits.MAX_PACKED_FRAMES} are allowed"
            )


def _frames(packed: PackedDefinitions) -> _Frames:
    counts = from_planes("module_frames", packed.module_frames)
    steps = from_planes("offsets", packed.offsets, OFFSET_BYTES)
    if len(counts) != len(packed.modules):
        raise MalformedError(f"module_frames must have {len(packed.modules)} values, one a module")
    if sum(counts) != len(steps):
        raise MalformedError(f"module_frames add up to {sum(counts)}, there are {len(steps)}")
    modules, offsets = array("I"), array("Q")
    at = 0
    for module, count in enumerate(counts):
        ours = steps[at : at + count]
        at += count
        if 0 in ours[1:]:
            raise MalformedError("the offsets of a module's frames must ascend")
        ascending = list(accumulate(ours))
        if ascending and ascending[-1] >= _OFFSETS:
            raise MalformedError("the offset of a frame is beyond 64 bits")
        offsets.extend(ascending)
        modules.extend([module] * count)
    return _Frames(modules, offsets)


def _packed_frames(packed: PackedDefinitions, frames: _Frames) -> list[bytes]:
    """The 16 bytes of each frame that enter a stack's hash."""
    modules = [module_hash(module) for module in packed.modules]
    is_named = [module.kind == ModuleKind.NAMED for module in packed.modules]
    names = [name_hash(name) for name in packed.names]
    hashed = []
    for module, offset in zip(frames.modules, frames.offsets, strict=True):
        if is_named[module] and offset >= len(names):
            raise MalformedError(f"a frame has name {offset}, beyond the {len(names)} names")
        place = names[offset] if is_named[module] else offset
        hashed.append(pack_frame(modules[module], place))
    return hashed


def _widen(packed: PackedDefinitions, frames: int) -> Iterator["array[int]"]:
    """Each stack as indexes of frames."""
    shared, rest = from_planes("shared", packed.shared), from_planes("rest", packed.rest)
    own = from_planes("frames", packed.frames)
    if len(shared) != len(rest):
        raise MalformedError(f"shared has {len(shared)} values, rest has {len(rest)}")
    if sum(rest) != len(own):
        raise MalformedError(f"rest adds up to {sum(rest)}, frames has {len(own)} values")
    if any(frame >= frames for frame in own):
        raise MalformedError(f"frames holds {max(own)}; it must be below {frames}")
    before = array("I")
    at = 0
    for common, count in zip(shared, rest, strict=True):
        if common > len(before) or not count:
            raise MalformedError(
                f"a stack shares {common} frames with one of {len(before)}, and has {count} more"
            )
        if common + count > limits.MAX_STACK_FRAMES:
            raise MalformedError(f"a stack has more than {limits.MAX_STACK_FRAMES} frames")
        before = before[:common] + own[at : at + count]
        at += count
        yield before
