"""Definitions in version 2: nothing is lost on the way, and nothing else gets in."""

import random
from array import array
from itertools import accumulate, chain, pairwise

import msgspec
import pytest

from wire import limits
from wire.codec import decode, encode
from wire.errors import MalformedError, TooLargeError, UnsupportedVersionError, WireError
from wire.hashes import definitions_check, module_hash, name_hash, pack_frame, stack_hash
from wire.packed import PackedDefinitions, PackedModule, PackedName, Stack, pack
from wire.schema import Definitions, Module, ModuleKind, Name
from wire.short import from_planes, to_planes
from wire.unpack import unpack
from wire.validate import check_definitions

MODULES = [
    Module(ModuleKind.NATIVE, b"\1" * 20, "libc.so.6"),
    Module(ModuleKind.NAMED, b"python", "python"),
    Module(ModuleKind.KERNEL, b"\2" * 20, "vmlinux"),
    Module(ModuleKind.NATIVE, b"\3" * 20, "never used"),
    Module(ModuleKind.NAMED, b"[jit]", "[jit]"),
]
NAMES = [Name(f"function_{n}", f"file_{n % 3}.py", n) for n in range(30)]


def definitions_of(stacks):
    """Of stacks as lists of (module, offset)."""
    rows = list(dict.fromkeys(chain.from_iterable(stacks)))
    random.Random(1).shuffle(rows)
    places = {frame: place for place, frame in enumerate(rows)}
    return Definitions(
        node="web-1",
        run=bytes(range(16)),
        modules=MODULES,
        names=NAMES,
        frame_module=array("I", [module for module, _ in rows]).tobytes(),
        frame_offset=array("Q", [offset for _, offset in rows]).tobytes(),
        stack_hashes=b"".join(map(hash_of, stacks)),
        stack_lengths=array("H", map(len, stacks)).tobytes(),
        stack_frames=array("I", [places[one] for one in chain.from_iterable(stacks)]).tobytes(),
    )


def hash_of(stack):
    return stack_hash(
        b"".join(
            pack_frame(
                module_hash(MODULES[module]),
                name_hash(NAMES[offset]) if MODULES[module].kind == ModuleKind.NAMED else offset,
            )
            for module, offset in stack
        )
    )


def parts_of(definitions):
    lengths = array("H", definitions.stack_lengths)
    edges = pairwise([0, *accumulate(lengths)])
    hashes = [
        definitions.stack_hashes[at : at + 16] for at in range(0, len(definitions.stack_hashes), 16)
    ]
    return [Stack(one, start, end) for one, (start, end) in zip(hashes, edges, strict=True)]


def packed_of(stacks, ahead=True):
    definitions = definitions_of(stacks)
    return pack(definitions, parts_of(definitions), ahead=ahead)


def stacks_of(definitions):
    """The stacks as tuples of (module, offset or name)."""
    check_definitions(definitions)
    modules = array("I", definitions.frame_module)
    offsets = array("Q", definitions.frame_offset)
    frames = []
    for place, offset in zip(modules, offsets, strict=True):
        module = definitions.modules[place]
        is_named = module.kind == ModuleKind.NAMED
        name = definitions.names[offset] if is_named else offset
        key = (name.function, name.file, name.line) if is_named else name
        frames.append((module.kind, module.id, module.name, key))
    rows = array("I", definitions.stack_frames)
    return {
        part.hash: tuple(frames[row] for row in rows[part.start : part.end])
        for part in parts_of(definitions)
    }


def random_stacks(seed, number=200):
    """As of programs: a few entry points, much in common, any depth up to the limit."""
    chance = random.Random(seed)
    frames = [(0, chance.randrange(2**64)) for _ in range(60)]
    frames += [(2, 2**64 - 1), (2, 0), (0, 2**64 - 1), (0, 0)]
    frames += [(module, n) for module in (1, 4) for n in range(30)]
    stacks = [[chance.choice(frames)] for _ in range(3)]
    for _ in range(number):
        begin = chance.choice(stacks)
        rest = [chance.choice(frames) for _ in range(chance.randrange(1, 20))]
        stacks.append(begin[: chance.randrange(1, len(begin) + 1)] + rest)
    stacks.append([chance.choice(frames) for _ in range(limits.MAX_STACK_FRAMES)])
    return [
        list(one) for one in dict.fromkeys(tuple(one[: limits.MAX_STACK_FRAMES]) for one in stacks)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_every_stack_arrives_with_its_hash(seed):
    stacks = random_stacks(seed)
    packed = decode(encode(packed_of(stacks)), PackedDefinitions)
    whole = unpack(packed)
    assert stacks_of(whole) == stacks_of(definitions_of(stacks))
    assert (whole.node, whole.run) == ("web-1", bytes(range(16)))
    assert "never used" not in {module.name for module in whole.modules}
    assert packed.ahead


def test_a_part_of_the_stacks_brings_only_what_it_refers_to():
    definitions = definitions_of([[(0, 5), (1, 7)], [(0, 5), (4, 9)], [(2, 1)]])
    part = pack(definitions, parts_of(definitions)[1:2], ahead=False)
    assert part.modules == [
        PackedModule(0, b"\1" * 20, "libc.so.6"),
        PackedModule(3, b"[jit]", "[jit]"),
    ]
    assert part.names == [PackedName("function_9", "file_0.py", 9)]
    assert list(from_planes("", part.offsets, 8)) == [5, 0]
    assert not part.ahead
    [[stack_frames]] = [stacks_of(unpack(part)).values()]
    assert [key for *_, key in stack_frames] == [5, ("function_9", "file_0.py", 9)]


def test_the_same_stack_and_the_same_frame_twice_come_once():
    definitions = definitions_of([[(0, 5), (0, 6)]])
    twice = msgspec.structs.replace(
        definitions,
        frame_module=definitions.frame_module * 2,
        frame_offset=definitions.frame_offset * 2,
        stack_hashes=definitions.stack_hashes * 2,
        stack_lengths=definitions.stack_lengths * 2,
        stack_frames=definitions.stack_frames
        + array("I", [row + 2 for row in array("I", definitions.stack_frames)]).tobytes(),
    )
    packed = pack(twice, parts_of(twice), ahead=True)
    assert packed == pack(definitions, parts_of(definitions), ahead=True)


def test_no_stacks_at_all():
    packed = packed_of([])
    assert stacks_of(unpack(decode(encode(packed), PackedDefinitions))) == {}


def test_what_stacks_share_is_sent_once():
    deep = [(0, 64 * level) for level in range(100)]
    stacks = [[*deep, (0, 2**20 + n)] for n in range(200)]
    packed = packed_of(stacks)
    assert list(from_planes("", packed.shared)) == [0] + [100] * 199
    assert list(from_planes("", packed.rest)) == [101] + [1] * 199
    assert len(encode(packed)) < 16 * 200 / 2  # of hashes alone, in version 1


# Frames 0 to 3 of module 0 at 1, 3, 6, 10; 4 and 5 are names 0 and 1. Stacks: 0 1 4, 0 1 5, 2 3.
GOOD = packed_of([[(0, 1), (0, 3), (1, 0)], [(0, 1), (0, 3), (1, 1)], [(0, 6), (0, 10)]])
BAD = {
    "check short": ({"check": b"1234567"}, MalformedError, "check must have 8 bytes"),
    "check of others": ({"check": bytes(8)}, MalformedError, "do not give the hashes"),
    "run": ({"check": definitions_check([])}, MalformedError, "do not give the hashes"),
    "another name": (
        {"names": [PackedName("innocent", "file_0.py", 0), GOOD.names[1]]},
        MalformedError,
        "do not give the hashes",
    ),
    "another module": (
        {"modules": [PackedModule(0, b"\4" * 20, "libc.so.6"), GOOD.modules[1]]},
        MalformedError,
        "do not give the hashes",
    ),
    "module of another kind": (
        {"modules": [GOOD.modules[0], PackedModule(0, b"python", "python")]},
        MalformedError,
        "do not give the hashes",
    ),
    "module kind negative": (
        {"modules": [GOOD.modules[0], PackedModule(-1, b"python", "python")]},
        MalformedError,
        "a module's kind is no byte",
    ),
    "module missing": ({"modules": GOOD.modules[:1]}, MalformedError, "must have 1 values"),
    "frames of no module": ({"module_frames": to_planes([4])}, MalformedError, "must have 2 val"),
    "too many frames": ({"module_frames": to_planes([4, 3])}, MalformedError, "add up to 7"),
    "huge number of frames": (
        {"module_frames": to_planes([2**32 - 1, 2**32 - 1])},
        MalformedError,
        "add up to 8589934590, there are 6",
    ),
    "planes cut": ({"module_frames": b"\4\2\0"}, MalformedError, "not a multiple of 4"),
    "offsets cut": ({"offsets": GOOD.offsets[:-1]}, MalformedError, "not a multiple of 8"),
    "frame twice": (
        {"offsets": to_planes([1, 0, 3, 4, 0, 1], 8)},
        MalformedError,
        "must ascend",
    ),
    "offset beyond 64 bits": (
        {"offsets": to_planes([1, 2, 3, 2**64 - 6, 0, 1], 8)},
        MalformedError,
        "beyond 64 bits",
    ),
    "name missing": ({"names": GOOD.names[:1]}, MalformedError, "has name 1, beyond the 1 names"),
    "shared too short": ({"shared": to_planes([0, 2])}, MalformedError, "shared has 2 values"),
    "first stack shares": ({"shared": to_planes([1, 2, 0])}, MalformedError, "shares 1 frames"),
    "shares too much": ({"shared": to_planes([0, 4, 0])}, MalformedError, "shares 4 frames"),
    "a stack again": (
        {"shared": to_planes([0, 3, 0]), "rest": to_planes([3, 0, 3])},
        MalformedError,
        "has 0 more",
    ),
    "rest adds up to more": ({"rest": to_planes([3, 1, 3])}, MalformedError, "rest adds up to 7"),
    "rest huge": (
        {"rest": to_planes([2**32 - 1] * 3)},
        MalformedError,
        "rest adds up to 12884901885",
    ),
    "frame beyond": (
        {"frames": to_planes([0, 1, 4, 5, 2, 6])},
        MalformedError,
        "frames holds 6; it must be below 6",
    ),
    "stack too deep": (
        {"rest": to_planes([3, 1, 257]), "frames": to_planes([0, 1, 4, 5] + [2] * 257)},
        MalformedError,
        "more than 256 frames",
    ),
    "stack too deep together": (
        {
            "shared": to_planes([0, 250, 0]),
            "rest": to_planes([250, 7, 1]),
            "frames": to_planes([0] * 250 + [1] * 7 + [2]),
        },
        MalformedError,
        "more than 256 frames",
    ),
    "too many stacks": (
        {"shared": bytes(4 * (limits.MAX_PACKED_STACKS + 1))},
        TooLargeError,
        "4097 stacks in a message; at most 4096",
    ),
    "too many frames in all": (
        {"frames": bytes(4 * (limits.MAX_PACKED_FRAMES + 1))},
        TooLargeError,
        "1048577 frames in a message",
    ),
    "too many offsets": (
        {"offsets": bytes(8 * (limits.MAX_PACKED_FRAMES + 1))},
        TooLargeError,
        "1048577 offsets in a message",
    ),
    "too many names": (
        {"names": GOOD.names[:1] * (limits.MAX_PACKED_FRAMES + 1)},
        TooLargeError,
        "1048577 names in a message",
    ),
}


def test_the_good_one_is_good():
    assert len(stacks_of(unpack(GOOD))) == 3


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused_with_the_fault(case):
    changes, error, words = BAD[case]
    with pytest.raises(error, match=words):
        unpack(msgspec.structs.replace(GOOD, **changes))


def test_as_many_frames_as_are_allowed():
    """A small message, unpacked to the limit: stacks as deep as possible that share all but one."""
    deep, stacks = limits.MAX_STACK_FRAMES, limits.MAX_PACKED_STACKS
    offsets = range(deep - 1 + stacks)
    hashed = [pack_frame(module_hash(MODULES[0]), offset) for offset in offsets]
    begin = b"".join(hashed[: deep - 1])
    packed = msgspec.structs.replace(
        GOOD,
        modules=[GOOD.modules[0]],
        names=[],
        check=definitions_check(stack_hash(begin + one) for one in hashed[deep - 1 :]),
        module_frames=to_planes([len(offsets)]),
        offsets=to_planes([0] + [1] * (len(offsets) - 1), 8),
        shared=to_planes([0] + [deep - 1] * (stacks - 1)),
        rest=to_planes([deep] + [1] * (stacks - 1)),
        frames=to_planes(offsets),
    )
    data = encode(packed)
    assert len(data) < 20_000
    assert len(unpack(decode(data, PackedDefinitions)).stack_frames) == 4 * deep * stacks


def test_cut_anywhere_it_is_a_named_error():
    data = encode(GOOD)
    for length in range(len(data)):
        with pytest.raises(WireError):
            decode(data[:length], PackedDefinitions)


def test_with_any_byte_changed_it_is_refused_or_still_of_these_stacks():
    data = encode(GOOD)
    stacks, refused = stacks_of(unpack(GOOD)).keys(), 0
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 0xFF
        try:
            found = unpack(decode(bytes(changed), PackedDefinitions))
        except WireError:
            refused += 1
        else:
            assert stacks_of(found).keys() == stacks
    assert refused > len(data) // 2


def test_neither_version_is_taken_for_the_other():
    with pytest.raises(UnsupportedVersionError, match="wire version 2 is unknown here"):
        decode(encode(GOOD), Definitions)
    with pytest.raises(UnsupportedVersionError, match="wire version 1 is unknown here"):
        decode(encode(definitions_of([[(0, 1)]])), PackedDefinitions)
