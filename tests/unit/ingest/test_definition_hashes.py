"""Definitions: every hash is computed again, every index is checked; a wrong stack costs itself."""

import msgspec
import numpy as np
import pytest

from aggregator.ingest.definitions import check_stacks
from aggregator.ingest.errors import BadValueError
from wire.errors import MalformedError
from wire.hashes import module_hash, name_hash, pack_frame, stack_hash
from wire.schema import Definitions, Module, ModuleKind, Name

LIBC = Module(ModuleKind.NATIVE, b"\x03" * 20, "libc.so.6")
KERNEL = Module(ModuleKind.KERNEL, b"\x02" * 20, "vmlinux")
PYTHON = Module(ModuleKind.NAMED, b"[python]", "[python]")
NAMES = [Name("main", "app.py", 7), Name("work", "app.py", 9)]
TOP = 2**64 - 8


def hash_of(*frames):
    return stack_hash(b"".join(pack_frame(h, offset) for h, offset in frames))


def u32(*values):
    return np.array(values, "<u4").tobytes()


NATIVE_FRAME = (module_hash(LIBC), 4096)
KERNEL_FRAME = (module_hash(KERNEL), TOP)
MAIN_FRAME = (module_hash(PYTHON), name_hash(NAMES[0]))
WORK_FRAME = (module_hash(PYTHON), name_hash(NAMES[1]))
GOOD = Definitions(
    node="web-1",
    run=bytes(16),
    modules=[LIBC, KERNEL, PYTHON],
    names=NAMES,
    frame_module=u32(0, 1, 2, 2),
    frame_offset=np.array([4096, TOP, 0, 1], "<u8").tobytes(),
    stack_hashes=hash_of(NATIVE_FRAME, MAIN_FRAME, WORK_FRAME) + hash_of(MAIN_FRAME, KERNEL_FRAME),
    stack_lengths=np.array([3, 2], "<u2").tobytes(),
    stack_frames=u32(0, 2, 3, 2, 1),
)


def test_columns_of_good_definitions():
    checked = check_stacks(GOOD)

    assert checked.starts.tolist() == [0, 3, 5]
    assert checked.stack_frames.tolist() == [0, 2, 3, 2, 1]
    assert checked.frame_name.tolist() == [-1, -1, 0, 1]
    signed = [value - 2**64 if value >= 2**63 else value for value in (4096, TOP)]
    assert checked.frame_offset[:2].tolist() == signed
    assert [value % 2**64 for value in checked.frame_offset[2:].tolist()] == [
        name_hash(name) for name in NAMES
    ]
    assert [value % 2**64 for value in checked.module_hashes.tolist()] == [
        module_hash(module) for module in GOOD.modules
    ]


def test_nothing_at_all_is_good():
    empty = {field: b"" for field in Definitions.__struct_fields__ if "_" in field}
    checked = check_stacks(msgspec.structs.replace(GOOD, modules=[], names=[], **empty))

    assert len(checked.frame_module) == 0
    assert checked.starts.tolist() == [0]


def test_display_name_of_a_module_is_not_part_of_its_identity():
    other = Module(LIBC.kind, LIBC.id, "libc-2.36.so")

    assert check_stacks(msgspec.structs.replace(GOOD, modules=[other, KERNEL, PYTHON]))


FIRST, SECOND = GOOD.stack_hashes[:16], GOOD.stack_hashes[16:]
LONG = "x" * 4097
# What is changed of GOOD: which stack that costs, and the reason.
WRONG = {
    "order of frames": ({"stack_frames": u32(0, 2, 3, 1, 2)}, {"hash": [SECOND]}),
    "hash": ({"stack_hashes": FIRST + SECOND[:15] + b"\0"}, {"hash": [SECOND[:15] + b"\0"]}),
    "names": ({"names": [NAMES[0], Name("other", "app.py", 9)]}, {"hash": [FIRST]}),
    "build id": (
        {"modules": [Module(LIBC.kind, b"\x04" * 20, "libc.so.6"), KERNEL, PYTHON]},
        {"hash": [FIRST]},
    ),
    "kind of module": (
        {"modules": [Module(ModuleKind.KERNEL_MODULE, LIBC.id, "x"), KERNEL, PYTHON]},
        {"hash": [FIRST]},
    ),
    "module of a frame": ({"frame_module": u32(1, 1, 2, 2)}, {"hash": [FIRST]}),
    "no such module": ({"frame_module": u32(9, 1, 2, 2)}, {"module_index": [FIRST]}),
    "no such frame": ({"stack_frames": u32(0, 2, 9, 2, 1)}, {"frame_index": [FIRST]}),
    "no such name": (
        {"frame_offset": np.array([4096, TOP, 0, 2], "<u8").tobytes()},
        {"name_index": [FIRST]},
    ),
    "name beyond all": (
        {"frame_offset": np.array([4096, TOP, 0, TOP], "<u8").tobytes()},
        {"name_index": [FIRST]},
    ),
    "line negative": ({"names": [NAMES[0], Name("work", "app.py", -1)]}, {"line": [FIRST]}),
    "line of -1": ({"names": [NAMES[0], Name("work", "app.py", 2**32 - 1)]}, {"line": [FIRST]}),
    "line huge": ({"names": [NAMES[0], Name("work", "app.py", 2**63)]}, {"line": [FIRST]}),
    "function with NUL": ({"names": [NAMES[0], Name("w\0")]}, {"name": [FIRST]}),
    "function too long": ({"names": [NAMES[0], Name(LONG)]}, {"name": [FIRST]}),
    "function too long in UTF-8": ({"names": [NAMES[0], Name("\u00e9" * 2049)]}, {"name": [FIRST]}),
    "file with NUL": ({"names": [NAMES[0], Name("work", "\0")]}, {"file": [FIRST]}),
    "file too long": ({"names": [NAMES[0], Name("work", LONG)]}, {"file": [FIRST]}),
    "unknown kind": ({"modules": [Module(9, b"x", "x"), KERNEL, PYTHON]}, {"module_kind": [FIRST]}),
    "kind of no byte": (
        {"modules": [Module(2**63, b"x", "x"), KERNEL, PYTHON]},
        {"module_kind": [FIRST]},
    ),
    "negative kind": (
        {"modules": [Module(-1, b"x", "x"), KERNEL, PYTHON]},
        {"module_kind": [FIRST]},
    ),
    "no build id": ({"modules": [Module(0, b"", "x"), KERNEL, PYTHON]}, {"module_id": [FIRST]}),
    "build id too long": (
        {"modules": [Module(0, bytes(65), "x"), KERNEL, PYTHON]},
        {"module_id": [FIRST]},
    ),
    "module with NUL": (
        {"modules": [Module(LIBC.kind, LIBC.id, "a\0"), KERNEL, PYTHON]},
        {"module_name": [FIRST]},
    ),
    "module's name too long": (
        {"modules": [Module(LIBC.kind, LIBC.id, "x" * 513), KERNEL, PYTHON]},
        {"module_name": [FIRST]},
    ),
    "no frames": (
        {"stack_lengths": np.array([0, 2], "<u2").tobytes(), "stack_frames": u32(2, 1)},
        {"depth": [FIRST]},
    ),
    "too deep": (
        {
            "stack_lengths": np.array([257, 2], "<u2").tobytes(),
            "stack_frames": u32(*[0] * 257, 2, 1),
        },
        {"depth": [FIRST]},
    ),
    "both": (
        {"names": [Name("main", "app.py", -7), NAMES[1]], "frame_module": u32(9, 1, 2, 2)},
        {"module_index": [FIRST], "line": [SECOND]},
    ),
}


@pytest.mark.parametrize(("change", "refused"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_costs_its_stack_alone(change, refused):
    checked = check_stacks(msgspec.structs.replace(GOOD, **change))

    assert checked.refused == refused
    lost = {one for stacks in refused.values() for one in stacks}
    kept = {one for one in (FIRST, SECOND) if one not in lost} if len(lost) < 2 else set()
    if "stack_hashes" in change:
        kept = {FIRST}
    assert checked.hashes == b"".join(sorted(kept, key=GOOD.stack_hashes.index))
    assert checked.all_hashes == sorted({*kept, *lost})
    if FIRST not in kept and kept:  # the frames of the second stack, where it is now the first
        assert checked.starts.tolist() == [0, 2]
        assert checked.stack_frames.tolist() == [2, 1]


@pytest.mark.parametrize(
    "change",
    [
        {"stack_frames": u32(0, 2, 3, 2)},
        {"stack_lengths": np.array([5, 1], "<u2").tobytes()},
        {"run": b""},
    ],
)
def test_a_message_whose_stacks_cannot_be_told_apart_is_refused(change):
    with pytest.raises(BadValueError):
        check_stacks(msgspec.structs.replace(GOOD, **change))


@pytest.mark.parametrize("change", [{"frame_offset": bytes(8)}, {"stack_lengths": b"\0"}])
def test_form_is_checked_first(change):
    with pytest.raises(MalformedError):
        check_stacks(msgspec.structs.replace(GOOD, **change))
