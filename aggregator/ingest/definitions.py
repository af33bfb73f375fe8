"""Check definitions and bring them into columns. Pure.

The centre believes no hash: it computes each stack's hash again from the modules, names and offsets
that the message gives, and refuses the whole message if one differs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aggregator.ingest.batches import HASH_BYTES
from aggregator.ingest.errors import BadValueError, HashMismatchError
from wire import limits
from wire.hashes import module_hash, name_hash, stack_hash
from wire.schema import Definitions, Module, ModuleKind, Name
from wire.validate import check_definitions

FRAME_BYTES = 16
_MAX_LINE = 2**31


@dataclass(frozen=True, eq=False)
class CheckedDefinitions:
    """Definitions whose hashes are right.

    Frame j is (`modules[frame_module[j]]`, `frame_offset[j]`): int64, the offset's 64 bits as
    signed, for names their hash, with `frame_name[j]` the index into `names` or -1. Stack i has the
    hash `hashes[16*i:16*i+16]` and the frames `stack_frames[starts[i]:starts[i+1]]`, root first.
    """

    modules: list[Module]
    module_hashes: NDArray[np.int64]  # signed
    names: list[Name]
    frame_module: NDArray[np.int64]
    frame_offset: NDArray[np.int64]
    frame_name: NDArray[np.int64]
    hashes: bytes
    starts: NDArray[np.int64]
    stack_frames: NDArray[np.int64]


def check_hashes(definitions: Definitions) -> CheckedDefinitions:
    """Check every value and hash of `definitions`.

    Raises wire errors for its form, BadValueError for its values, HashMismatchError for a hash.
    """
    check_definitions(definitions)
    _check_texts(definitions)
    frame_module = _indexes("frame_module", definitions.frame_module, len(definitions.modules))
    starts = _starts(definitions)
    frames = len(frame_module)
    stack_frames = _indexes("stack_frames", definitions.stack_frames, frames)
    offsets = np.frombuffer(definitions.frame_offset, "<u8").copy()
    kinds = np.array([module.kind for module in definitions.modules], np.int64)
    named = kinds[frame_module] == ModuleKind.NAMED if frames else np.zeros(0, bool)
    frame_name = np.full(frames, -1, np.int64)
    if named.any():
        if int(offsets[named].max()) >= len(definitions.names):
            raise BadValueError(
                f"a named frame has index {int(offsets[named].max())}, beyond the "
                f"{len(definitions.names)} names"
            )
        frame_name[named] = offsets[named].astype(np.int64)
        name_hashes = np.array([name_hash(name) for name in definitions.names], np.uint64)
        offsets[named] = name_hashes[frame_name[named]]
    module_hashes = np.array([module_hash(module) for module in definitions.modules], np.uint64)
    packed = np.empty((frames, 2), "<u8")
    packed[:, 0] = module_hashes[frame_module]
    packed[:, 1] = offsets
    _compare(definitions.stack_hashes, starts, packed[stack_frames].tobytes())
    return CheckedDefinitions(
        modules=definitions.modules,
        module_hashes=module_hashes.view(np.int64),
        names=definitions.names,
        frame_module=frame_module,
        frame_offset=offsets.view(np.int64),
        frame_name=frame_name,
        hashes=definitions.stack_hashes,
        starts=starts,
        stack_frames=stack_frames,
    )


def _compare(claimed: bytes, starts: NDArray[np.int64], packed: bytes) -> None:
    edges = (starts * FRAME_BYTES).tolist()
    for i in range(len(edges) - 1):
        given = claimed[i * HASH_BYTES : (i + 1) * HASH_BYTES]
        computed = stack_hash(packed[edges[i] : edges[i + 1]])
        if computed != given:
            raise HashMismatchError(
                f"stack {i} claims the hash {given.hex()}, its frames give {computed.hex()}"
            )


def _starts(definitions: Definitions) -> NDArray[np.int64]:
    lengths = np.frombuffer(definitions.stack_lengths, "<u2").astype(np.int64)
    if len(lengths) and not 1 <= int(lengths.min()) <= int(lengths.max()) <= (
        limits.MAX_STACK_FRAMES
    ):
        raise BadValueError(f"a stack must have 1 to {limits.MAX_STACK_FRAMES} frames")
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    if int(starts[-1]) != len(definitions.stack_frames) // 4:
        raise BadValueError(
            f"stack_lengths add up to {int(starts[-1])}, stack_frames has "
            f"{len(definitions.stack_frames) // 4} rows"
        )
    return starts


def _indexes(field: str, column: bytes, limit: int) -> NDArray[np.int64]:
    indexes = np.frombuffer(column, "<u4").astype(np.int64)
    if len(indexes) and int(indexes.max()) >= limit:
        raise BadValueError(f"{field} holds {int(indexes.max())}; it must be below {limit}")
    return indexes


def _check_texts(definitions: Definitions) -> None:
    if len(definitions.run) != HASH_BYTES:
        raise BadValueError(f"run must be 16 bytes, it has {len(definitions.run)}")
    for module in definitions.modules:
        if "\0" in module.name:
            raise BadValueError(f"the name of module {module.id.hex()} holds NUL")
    for name in definitions.names:
        if "\0" in name.function or "\0" in name.file:
            raise BadValueError("the name of a frame holds NUL")
        if not 0 <= name.line < _MAX_LINE:
            raise BadValueError(f"line {name.line} of {name.function[:80]!r} is out of range")
