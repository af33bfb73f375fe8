"""Check definitions and bring them into columns. Pure.

The centre believes no hash: it computes each stack's hash again from the modules, names and offsets
that the message gives. A stack that has something wrong is refused, and counted by what that is;
the others of the message are taken. Names come from programs that any user of a host may run, so
one of them must not cost the host its profile.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aggregator.ingest.batches import HASH_BYTES, split_hashes
from aggregator.ingest.errors import BadValueError
from wire import limits
from wire.faults import module_fault, name_fault
from wire.hashes import module_hash, name_hash, stack_hash
from wire.schema import Definitions, Module, ModuleKind, Name
from wire.validate import check_definitions

FRAME_BYTES = 16
# What a stack is refused for, of several the last. The first stands for none.
_FAULTS = (
    *("", "module_kind", "module_id", "module_name", "name", "file", "line"),
    *("module_index", "name_index", "frame_index", "depth", "hash"),
)
_CODES = {fault: code for code, fault in enumerate(_FAULTS)}
Codes = NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class CheckedDefinitions:
    """Definitions whose hashes are right, without the stacks that are `refused`: hashes by reason.

    Frame j is (`modules[frame_module[j]]`, `frame_offset[j]`): int64, the offset's 64 bits as
    signed, for names their hash, with `frame_name[j]` the index into `names` or -1. Stack i has the
    hash `hashes[16*i:16*i+16]` and the frames `stack_frames[starts[i]:starts[i+1]]`, root first.
    Modules, names and frames that no stack here has may be wrong.
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
    refused: Mapping[str, list[bytes]]

    @property
    def all_hashes(self) -> list[bytes]:
        """The distinct hashes of the message in order, those of refused stacks among them."""
        refused = (stack for stacks in self.refused.values() for stack in stacks)
        return sorted({*split_hashes(self.hashes), *refused})


@dataclass(frozen=True, eq=False)
class _Frames:
    """Columns of frames, with the code of what is wrong with each."""

    module: NDArray[np.int64]
    offset: NDArray[np.uint64]
    name: NDArray[np.int64]
    module_hashes: NDArray[np.uint64]  # and 0
    faults: Codes


def check_stacks(definitions: Definitions) -> CheckedDefinitions:
    """Check every value and hash of `definitions`.

    Raises wire errors for its form, BadValueError where it cannot be told which stack has which
    frames.
    """
    check_definitions(definitions)
    if len(definitions.run) != HASH_BYTES:
        raise BadValueError(f"run must be 16 bytes, it has {len(definitions.run)}")
    starts = _starts(definitions)
    frames = _read_frames(definitions)
    stack_frames = np.frombuffer(definitions.stack_frames, "<u4").astype(np.int64)
    faults = _stack_faults(starts, stack_frames, frames.faults)
    packed = np.empty((len(frames.module), 2), "<u8")
    packed[:, 0] = frames.module_hashes[frames.module]
    packed[:, 1] = frames.offset
    claimed = split_hashes(definitions.stack_hashes)
    for i in np.flatnonzero(faults == 0).tolist():
        rows = stack_frames[starts[i] : starts[i + 1]]
        if stack_hash(packed[rows].tobytes()) != claimed[i]:
            faults[i] = _CODES["hash"]
    refused: dict[str, list[bytes]] = {}
    for i in np.flatnonzero(faults).tolist():
        refused.setdefault(_FAULTS[faults[i]], []).append(claimed[i])
    good = faults == 0
    lengths = np.diff(starts)
    return CheckedDefinitions(
        modules=definitions.modules,
        module_hashes=frames.module_hashes[:-1].view(np.int64),
        names=definitions.names,
        frame_module=frames.module,
        frame_offset=frames.offset.view(np.int64),
        frame_name=frames.name,
        hashes=b"".join(claimed[i] for i in np.flatnonzero(good).tolist()),
        starts=np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths[good]))),
        stack_frames=stack_frames[np.repeat(good, lengths)],
        refused=refused,
    )


def _starts(definitions: Definitions) -> NDArray[np.int64]:
    lengths = np.frombuffer(definitions.stack_lengths, "<u2").astype(np.int64)
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    if int(starts[-1]) != len(definitions.stack_frames) // 4:
        raise BadValueError(
            f"stack_lengths add up to {int(starts[-1])}, stack_frames has "
            f"{len(definitions.stack_frames) // 4} rows"
        )
    return starts


def _read_frames(definitions: Definitions) -> _Frames:
    modules, names = definitions.modules, definitions.names
    module_faults = _codes([module_fault(module) for module in modules])
    name_faults = _codes([name_fault(name) for name in names])
    module = np.frombuffer(definitions.frame_module, "<u4").astype(np.int64)
    offset = np.frombuffer(definitions.frame_offset, "<u8").copy()
    faults = _look_up(module_faults, module, _CODES["module_index"])
    module = np.where(module < len(modules), module, 0)
    # One module and one name more: frames that have none are of these, and never of a stack.
    kinds = [-1 if code else one.kind for one, code in zip(modules, module_faults, strict=True)]
    kinds_of = np.array([*kinds, -1])[module]
    named = np.flatnonzero((faults == 0) & (kinds_of == ModuleKind.NAMED))
    name = np.full(len(module), -1, np.int64)
    numbers = np.minimum(offset[named], len(names)).astype(np.int64)
    faults[named] = _look_up(name_faults, numbers, _CODES["name_index"])
    name[named] = numbers
    hashes = [0 if code else name_hash(one) for one, code in zip(names, name_faults, strict=True)]
    offset[named] = np.array([*hashes, 0], np.uint64)[numbers]
    hashes = [
        0 if code else module_hash(one) for one, code in zip(modules, module_faults, strict=True)
    ]
    return _Frames(module, offset, name, np.array([*hashes, 0], np.uint64), faults)


def _stack_faults(
    starts: NDArray[np.int64], stack_frames: NDArray[np.int64], frame_faults: Codes
) -> Codes:
    lengths = np.diff(starts)
    faults = np.zeros(len(lengths), np.int8)
    some = lengths > 0
    if some.any():
        of_rows = _look_up(frame_faults, stack_frames, _CODES["frame_index"])
        faults[some] = np.maximum.reduceat(of_rows, starts[:-1][some])
    faults[(lengths < 1) | (lengths > limits.MAX_STACK_FRAMES)] = _CODES["depth"]
    return faults


def _codes(faults: list[str | None]) -> Codes:
    return np.array([_CODES[fault or ""] for fault in faults], np.int8)


def _look_up(codes: Codes, indexes: NDArray[np.int64], beyond: int) -> Codes:
    """`codes[indexes]`, and `beyond` for indexes past their end."""
    longer = np.append(codes, np.int8(beyond))
    found: Codes = longer[np.minimum(indexes, len(codes))]
    return found
