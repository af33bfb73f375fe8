import numpy as np
import pytest

from aggregator.profiles.dictionary import RETRY_S, Dictionary
from aggregator.profiles.frame_table import (
    SETTLED_FRESH_S,
    UNRESOLVED_FRESH_S,
    FrameRow,
    Function,
    describe_frame,
)
from aggregator.profiles.prefix_tree import REFUSED, UNDEFINED
from wire.schema import ModuleKind

BUILD = b"\x0a" * 20


def ints(*values):
    return np.array(values, np.int64)


def packed(*frame_ids):
    return np.array(frame_ids, "<u4").tobytes()


def row(id_, function=None, **changes):
    columns = {
        "id": id_,
        "offset": 0x1000 + id_,
        "function": function,
        "file": None,
        "line": None,
        "resolved": function is not None,
        "module_id": 7,
        "kind": ModuleKind.NATIVE,
        "build_id": BUILD,
        "module": "libc.so.6",
    }
    return FrameRow(**{**columns, **changes})


@pytest.mark.parametrize(
    ("frame", "function", "unnamed"),
    [
        (row(1, "malloc"), Function("malloc", "libc.so.6", "native"), False),
        (row(1), Function("libc.so.6+0x1001", "libc.so.6", "unknown", BUILD.hex()), True),
        (row(1, ""), Function("libc.so.6+0x1001", "libc.so.6", "unknown", BUILD.hex()), True),
        (
            row(1, resolved=True),  # looked up, and no symbol covers it
            Function("libc.so.6+0x1001", "libc.so.6", "unknown", BUILD.hex()),
            True,
        ),
        (
            row(1, offset=-1),
            Function("libc.so.6+0xffffffffffffffff", "libc.so.6", "unknown", BUILD.hex()),
            1,
        ),
        (
            row(1, "ksys_read", kind=ModuleKind.KERNEL, module="vmlinux"),
            Function("ksys_read", "vmlinux", "kernel"),
            False,
        ),
        (
            row(1, kind=ModuleKind.KERNEL, module="vmlinux"),
            Function("vmlinux+0x1001", "vmlinux", "kernel", BUILD.hex()),
            True,
        ),
        (
            row(1, "ext4_read", kind=ModuleKind.KERNEL_MODULE, module="ext4"),
            Function("ext4_read", "ext4", "kernel"),
            False,
        ),
        (
            row(1, "[jit]", kind=ModuleKind.NAMED, build_id=b"[jit]", module="[jit]"),
            Function("[jit]", "", "jit"),
            True,
        ),
        (
            row(1, "[jit]", kind=ModuleKind.NAMED, build_id=b"[unknown]", module="[unknown]"),
            Function("[jit]", "", "jit"),
            True,
        ),
        (
            row(1, "LazyCompile:~f", kind=ModuleKind.NAMED, build_id=b"[jit]", module="node"),
            Function("LazyCompile:~f", "node", "jit"),
            False,
        ),
        (
            row(
                1, "parse", file="/app/a.js", kind=ModuleKind.NAMED, build_id=b"jit", module="[jit]"
            ),
            Function("parse", "[jit]", "jit", file="/app/a.js"),
            False,
        ),
        (
            row(
                1,
                "run",
                file="/app/a.py",
                kind=ModuleKind.NAMED,
                build_id=b"python",
                module="python",
            ),
            Function("run", "python", "python", file="/app/a.py"),
            False,
        ),
        (
            row(1, "[unmapped]", kind=ModuleKind.NAMED, build_id=b"[unknown]", module="[unknown]"),
            Function("[unmapped]", "", "unknown"),
            True,
        ),
        (
            row(1, "bpf_prog_ab", kind=ModuleKind.NAMED, build_id=b"bpf", module="bpf"),
            Function("bpf_prog_ab", "bpf", "kernel"),
            False,
        ),
    ],
)
def test_what_a_frame_is_shown_as(frame, function, unnamed):
    assert describe_frame(frame) == (function, unnamed)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("main.main", "go"),
        ("runtime.goexit", "go"),
        ("net/http.(*conn).serve", "go"),
        ("github.com/user/my-lib/v2.Parse[...]", "go"),
        ("main.main.func1.2", "go"),
        ("main", "native"),
        ("foo.isra.0", "native"),
        ("_PyEval_EvalFrameDefault.cold", "native"),
        ("counter.1", "native"),
        ("std::vector<a.b>::size", "native"),
        ("core::fmt::write.llvm.123", "native"),
        ("operator new(unsigned long)", "native"),
    ],
)
def test_go_is_known_by_its_names(name, kind):
    assert describe_frame(row(1, name))[0].kind == kind


def test_stacks_are_read_once_and_undefined_ones_asked_for_again():
    dictionary = Dictionary()
    wanted = ints(3, 5, 8)
    assert dictionary.missing_stacks(wanted, 100.0) == [3, 5, 8]
    rows = [(3, packed(1, 2)), (8, b""), (9, b"abc")]  # empty and broken ones are not defined
    dictionary.add_stacks([3, 5, 8, 9], rows, 100.0)
    assert (dictionary.leaves(wanted) == UNDEFINED).tolist() == [False, True, True]

    assert dictionary.missing_stacks(wanted, 100.0 + RETRY_S - 0.1) == []
    assert dictionary.missing_stacks(ints(3, 4), 100.0 + RETRY_S - 0.1) == [4]
    assert dictionary.missing_stacks(wanted, 100.0 + RETRY_S) == [5, 8]

    dictionary.add_stacks([5, 8], [(5, packed(1))], 102.0)
    assert (dictionary.leaves(wanted) == UNDEFINED).tolist() == [False, False, True]


def test_refused_stacks_are_told_from_undefined_ones_until_they_are_defined():
    dictionary = Dictionary()
    wanted = ints(3, 5, 8, 9)
    dictionary.missing_stacks(wanted, 100.0)
    dictionary.add_stacks([3, 5, 8, 9], [(3, packed(1)), (5, None), (9, None)], 100.0)
    assert dictionary.leaves(wanted)[1:].tolist() == [REFUSED, UNDEFINED, REFUSED]

    assert dictionary.missing_stacks(wanted, 102.0) == [5, 8, 9]
    dictionary.add_stacks([5, 8, 9], [(5, packed(1)), (8, None)], 102.0)
    leaves = dictionary.leaves(wanted)
    assert leaves[0] == leaves[1]
    assert leaves[2:].tolist() == [REFUSED, UNDEFINED]
    functions = dictionary.frames.functions
    frames = dictionary.tree.frames_of(leaves[2:])
    names = [functions[number].name for number in dictionary.frames.functions_of(frames).tolist()]
    assert names == ["[refused]", "[undefined]"]


def test_long_names_make_a_dictionary_full(monkeypatch):
    monkeypatch.setattr("aggregator.profiles.dictionary.MAX_TEXT_BYTES", 100_000)
    dictionary = Dictionary()
    dictionary.frames.numbers(ints(*range(1, 14)))
    for number in range(1, 14):
        assert not dictionary.is_full()
        long = row(number, f"{number}" + "x" * 4_000, file=f"{number}" + "y" * 4_000)
        dictionary.frames.update([long, long], 0.0)
    assert dictionary.is_full()


def test_frames_are_read_again_while_they_may_get_a_symbol():
    frames = Dictionary().frames
    one, two = frames.numbers(ints(10, 20)).tolist()
    both = ints(one, two)
    assert frames.stale_ids(both, 0.0) == [10, 20]
    frames.update([row(10, "malloc"), row(20)], 0.0)
    assert frames.stale_ids(both, UNRESOLVED_FRESH_S - 0.1) == []
    assert frames.stale_ids(both, UNRESOLVED_FRESH_S) == [20]
    frames.update([row(20, "free", file="free.c", line=4)], UNRESOLVED_FRESH_S)
    assert frames.stale_ids(both, SETTLED_FRESH_S - 0.1) == []
    assert frames.stale_ids(both, SETTLED_FRESH_S) == [10]
    names = [frames.functions[index].name for index in frames.functions_of(both)]
    assert names == ["malloc", "free"]
    assert frames.unnamed(both).tolist() == [False, False]
    place = frames.place(two)
    assert (place.file, place.line, place.address) == ("free.c", 4, 0x1000 + 20)
    assert place.build_id == BUILD.hex()


def test_frame_numbers_stay_and_undefined_is_always_known():
    frames = Dictionary().frames
    first = frames.numbers(ints(7, 7, 3))
    assert first[0] == first[1] != first[2]
    assert frames.numbers(ints(3, 9, 7))[[2, 0]].tolist() == first[[0, 2]].tolist()
    undefined = ints(0)
    assert frames.stale_ids(undefined, 1e12) == []
    assert frames.functions[frames.functions_of(undefined)[0]].name == "[undefined]"
    assert frames.unnamed(undefined).tolist() == [True]
    assert frames.place(0).address == 0
