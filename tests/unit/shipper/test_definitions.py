import random
from array import array
from itertools import chain

import pytest

from node_agent.shipper.definitions import encode_stacks, missing, select, split_hashes
from wire.codec import decode
from wire.errors import MalformedError
from wire.hashes import module_hash, name_hash, pack_frame, stack_hash
from wire.packed import PackedDefinitions
from wire.schema import Definitions, Module, ModuleKind, Name
from wire.unpack import unpack
from wire.validate import check_definitions

MODULES = [
    Module(ModuleKind.NATIVE, b"\1" * 20, "a.so"),
    Module(ModuleKind.NAMED, b"[jit]", "[jit]"),
    Module(ModuleKind.KERNEL, b"\2" * 20, "vmlinux"),
    Module(ModuleKind.NAMED, b"bpf", "bpf"),
]
NAMES = [Name("f"), Name("g", "g.py", 3), Name("h")]


def frames_of(definitions: Definitions) -> dict[bytes, bytes]:
    """Packed frames by claimed hash, as the centre computes them."""
    check_definitions(definitions)
    modules = memoryview(definitions.frame_module).cast("I")
    offsets = memoryview(definitions.frame_offset).cast("Q")
    frames = []
    for index, module_index in enumerate(modules):
        module, offset = definitions.modules[module_index], offsets[index]
        if module.kind == ModuleKind.NAMED:
            offset = name_hash(definitions.names[offset])
        frames.append(pack_frame(module_hash(module), offset))
    stacks, at = {}, 0
    indexes = memoryview(definitions.stack_frames).cast("I")
    for stack, length in enumerate(memoryview(definitions.stack_lengths).cast("H")):
        claimed = definitions.stack_hashes[16 * stack : 16 * stack + 16]
        stacks[claimed] = b"".join(frames[index] for index in indexes[at : at + length])
        at += length
    return stacks


@pytest.fixture(scope="module")
def stored() -> Definitions:
    """60 random stacks over 40 frames."""
    seed = random.Random(3)
    frames = [
        (module, seed.randrange(3) if MODULES[module].kind == ModuleKind.NAMED else offset * 8)
        for offset in range(40)
        for module in [seed.randrange(4)]
    ]
    stacks = [[seed.randrange(40) for _ in range(seed.randrange(1, 30))] for _ in range(60)]
    draft = Definitions(
        node="web-1",
        run=b"r" * 16,
        modules=MODULES,
        names=NAMES,
        frame_module=array("I", [module for module, _ in frames]).tobytes(),
        frame_offset=array("Q", [offset for _, offset in frames]).tobytes(),
        stack_hashes=b"".join(index.to_bytes(16, "big") for index in range(60)),
        stack_lengths=array("H", map(len, stacks)).tobytes(),
        stack_frames=array("I", chain.from_iterable(stacks)).tobytes(),
    )
    hashes = [stack_hash(packed) for packed in frames_of(draft).values()]
    assert len(set(hashes)) == 60
    return Definitions(
        **{
            field: getattr(draft, field)
            for field in draft.__struct_fields__
            if field != "stack_hashes"
        },
        stack_hashes=b"".join(hashes),
    )


def message_of(stored: Definitions, stacks, packed: bool) -> Definitions:
    """What the centre gets of these stacks."""
    data = encode_stacks(stored, stacks, packed=packed, ahead=False)
    return unpack(decode(data, PackedDefinitions)) if packed else decode(data, Definitions)


@pytest.mark.parametrize("every", [1, 2, 7, 60])
@pytest.mark.parametrize("stacks_per_message", [1, 13, 4096])
@pytest.mark.parametrize("packed", [False, True])
def test_exactly_the_wanted_stacks_keep_their_frames(stored, every, stacks_per_message, packed):
    wanted = split_hashes(stored.stack_hashes)[::every]
    found = {}
    for stacks in select(stored, wanted, stacks_per_message):
        message = message_of(stored, stacks, packed)
        part = frames_of(message)
        assert len(part) <= stacks_per_message
        assert found.keys().isdisjoint(part)
        found |= part
        assert (message.node, message.run) == (stored.node, stored.run)
        assert all(stack_hash(packed) == claimed for claimed, packed in part.items())
    everything = frames_of(stored)
    assert found == {one: everything[one] for one in wanted}


@pytest.mark.parametrize("packed", [False, True])
def test_nothing_travels_that_no_wanted_stack_refers_to(stored, packed):
    (stacks,) = select(stored, split_hashes(stored.stack_hashes)[:1])
    message = message_of(stored, stacks, packed)
    frames = len(message.frame_module) // 4
    assert set(memoryview(message.stack_frames).cast("I")) == set(range(frames))
    assert set(memoryview(message.frame_module).cast("I")) == set(range(len(message.modules)))
    named = sum(module.kind == ModuleKind.NAMED for module in message.modules)
    assert bool(message.names) == bool(named)
    assert frames < 40


def test_unknown_hashes_are_missing_and_not_sent(stored):
    known, unknown = split_hashes(stored.stack_hashes)[0], b"?" * 16
    assert missing(stored, [unknown, known]) == [unknown]
    assert missing(None, [known]) == [known]
    assert list(select(stored, [unknown])) == []


def test_hashes_that_do_not_fit():
    assert split_hashes(b"") == []
    with pytest.raises(MalformedError, match="multiple of 16"):
        split_hashes(b"x" * 17)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stack_lengths", b"\xff\xff" * 60),
        ("stack_lengths", b"\1"),
        ("stack_frames", b"\xff\xff\0\0" * 2000),
        ("frame_module", b"\x09\0\0\0" * 40),
        ("names", []),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_columns_that_do_not_fit_are_malformed(stored, field, value, packed):
    broken = Definitions(
        **{name: getattr(stored, name) for name in stored.__struct_fields__} | {field: value}
    )
    with pytest.raises(MalformedError):
        for stacks in select(broken, split_hashes(stored.stack_hashes)):
            encode_stacks(broken, stacks, packed=packed, ahead=False)
