"""Version 2 of definitions: each stack by what it has beyond the one before it.

Stacks that are defined together mostly begin alike, at an entry point, and differ in their last few
frames. So frames are sorted, and stacks by their frames; of a stack is sent how many frames it
shares with the one before, and the rest (front coding: Witten, Moffat, Bell, "Managing Gigabytes",
2nd edition, section 4.1). Hashes are not sent: they follow from the frames, and `check` says that
both sides have made the same ones.
"""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import msgspec

from wire.hashes import definitions_check
from wire.schema import Definitions, Module, ModuleKind, Name
from wire.short import to_planes

OFFSET_BYTES = 8  # of the values in the planes of offsets


class PackedModule(Module, frozen=True, array_like=True):
    """`Module` without the names of its fields."""


class PackedName(Name, frozen=True, array_like=True):
    """`Name` without the names of its fields."""


class PackedDefinitions(msgspec.Struct, frozen=True, array_like=True):
    """`Definitions`; fields of the same name mean the same.

    Definitions that go `ahead` of their batch are of stacks that no batch may have brought yet, and
    are answered with the numbers of these. Frames come module by module in the order of `modules`,
    their offsets ascending: the first one, then the step to each next. Stacks ascend too, as lists
    of indexes of frames: stack i is the first `shared[i]` frames of stack i - 1, then the next
    `rest[i]` of `frames`.
    """

    node: str
    run: bytes
    ahead: bool
    modules: list[PackedModule]
    names: list[PackedName]
    check: bytes  # 8 bytes: wire.hashes.definitions_check of the stacks' hashes in order
    module_frames: bytes  # planes: frames of each module
    offsets: bytes  # planes of u64
    shared: bytes  # planes
    rest: bytes  # planes, 1 or more
    frames: bytes  # planes


class Stack(NamedTuple):
    """A stack of `Definitions`: its hash, and its part of `stack_frames`."""

    hash: bytes
    start: int
    end: int


def pack(definitions: Definitions, stacks: Sequence[Stack], *, ahead: bool) -> PackedDefinitions:
    """These of the stacks of `definitions`, at most MAX_PACKED_STACKS, and only what they refer to.
    Raises IndexError where a column points outside another."""
    rows = memoryview(definitions.stack_frames).cast("I")
    rows_of = [rows[stack.start : stack.end].tolist() for stack in stacks]
    frames, places = _sort_frames(definitions, set(chain.from_iterable(rows_of)))
    hash_of = {
        tuple(map(places.__getitem__, rows)): stack.hash
        for rows, stack in zip(rows_of, stacks, strict=True)
    }
    modules = sorted({module for module, _ in frames})
    named = {n for n in modules if definitions.modules[n].kind == ModuleKind.NAMED}
    names = sorted({offset for module, offset in frames if module in named})
    name_places = {name: place for place, name in enumerate(names)}
    ordered = sorted(hash_of)
    shared, own = _front_code(ordered)
    return PackedDefinitions(
        node=definitions.node,
        run=definitions.run,
        ahead=ahead,
        modules=[_packed_module(definitions.modules[n]) for n in modules],
        names=[_packed_name(definitions.names[n]) for n in names],
        check=definitions_check(map(hash_of.__getitem__, ordered)),
        module_frames=to_planes(Counter(module for module, _ in frames).values()),
        offsets=to_planes(
            _steps([(m, name_places[o] if m in named else o) for m, o in frames]), OFFSET_BYTES
        ),
        shared=to_planes(shared),
        rest=to_planes(len(stack) - common for stack, common in zip(ordered, shared, strict=True)),
        frames=to_planes(own),
    )


def _packed_module(module: Module) -> PackedModule:
    return PackedModule(module.kind, module.id, module.name)


def _packed_name(name: Name) -> PackedName:
    return PackedName(name.function, name.file, name.line)


def _sort_frames(
    definitions: Definitions, rows: set[int]
) -> tuple[list[tuple[int, int]], dict[int, int]]:
    """The distinct (module, offset) of these rows in order, and the place of each row there."""
    modules = memoryview(definitions.frame_module).cast("I")
    offsets = memoryview(definitions.frame_offset).cast("Q")
    frames: list[tuple[int, int]] = []
    places = {}
    for module, offset, row in sorted((modules[row], offsets[row], row) for row in rows):
        if not frames or frames[-1] != (module, offset):
            frames.append((module, offset))
        places[row] = len(frames) - 1
    return frames, places


def _steps(frames: list[tuple[int, int]]) -> Iterator[int]:
    """Each offset as the step from the one before it in its module."""
    last_module, last = -1, 0
    for module, offset in frames:
        yield offset - last if module == last_module else offset
        last_module, last = module, offset


def _front_code(stacks: list[tuple[int, ...]]) -> "tuple[list[int], array[int]]":
    """How many items each stack shares with the one before, and the items that it does not."""
    shared, own = [], array("I")
    before: tuple[int, ...] = ()
    for stack in stacks:
        common = _common(before, stack)
        shared.append(common)
        own.extend(stack[common:])
        before = stack
    return shared, own


def _common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many items both begin with."""
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count
