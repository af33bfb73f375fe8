"""Definitions: every hash is computed again, every index is checked."""

import msgspec
import numpy as np
import pytest

from aggregator.ingest.definitions import check_hashes
from aggregator.ingest.errors import BadValueError, HashMismatchError
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
    checked = check_hashes(GOOD)

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
    checked = check_hashes(msgspec.structs.replace(GOOD, modules=[], names=[], **empty))

    assert len(checked.frame_module) == 0
    assert checked.starts.tolist() == [0]


def test_display_name_of_a_module_is_not_part_of_its_identity():
    other = Module(LIBC.kind, LIBC.id, "libc-2.36.so")

    assert check_hashes(msgspec.structs.replace(GOOD, modules=[other, KERNEL, PYTHON]))


def test_the_order_of_frames_counts():
    with pytest.raises(HashMismatchError, match="stack 1 claims"):
        check_hashes(msgspec.structs.replace(GOOD, stack_frames=u32(0, 2, 3, 1, 2)))


@pytest.mark.parametrize(
    "change",
    [
        {"stack_hashes": GOOD.stack_hashes[:31] + b"\0"},
        {"names": [NAMES[1], NAMES[0]]},
        {"modules": [Module(LIBC.kind, b"\x04" * 20, "libc.so.6"), KERNEL, PYTHON]},
        {"modules": [Module(ModuleKind.KERNEL_MODULE, LIBC.id, "libc.so.6"), KERNEL, PYTHON]},
        {"frame_module": u32(1, 0, 2, 2)},
    ],
)
def test_lies_are_refused(change):
    with pytest.raises(HashMismatchError):
        check_hashes(msgspec.structs.replace(GOOD, **change))


@pytest.mark.parametrize(
    "change",
    [
        {"frame_module": u32(0, 1, 2, 3)},
        {"stack_frames": u32(0, 2, 3, 2, 4)},
        {"stack_frames": u32(0, 2, 3, 2)},
        {"stack_lengths": np.array([5, 0], "<u2").tobytes()},
        {"stack_lengths": np.array([3, 257], "<u2").tobytes()},
        {"frame_offset": np.array([4096, TOP, 0, 2], "<u8").tobytes()},
        {"names": []},
        {"run": b""},
    ],
)
def test_values_out_of_range(change):
    with pytest.raises(BadValueError):
        check_hashes(msgspec.structs.replace(GOOD, **change))


@pytest.mark.parametrize(
    "change",
    [
        {"frame_offset": bytes(8)},
        {"stack_lengths": b"\0"},
        {"modules": [Module(9, b"x", "x")]},
        {"modules": [Module(0, b"", "x")]},
    ],
)
def test_form_is_checked_first(change):
    with pytest.raises(MalformedError):
        check_hashes(msgspec.structs.replace(GOOD, **change))
