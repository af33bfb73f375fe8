"""From the addresses of real processes to frames."""

import ctypes
import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from node_agent import addresses, normalize
from node_agent.collectors.stacks import ProcessKey, RawStack, SampleKey, StackEnd
from node_agent.cpython.structs import PythonNameC
from node_agent.processes.mappings import read_start_ticks

TICK_NS = 10_000_000
KERNEL_BASE = 0xFFFFFFFF81000000


def _key(raw: RawStack) -> SampleKey:
    return SampleKey(raw.stack_key, *raw.process, raw.cgroup_id, raw.thread_name, 0)


def test_frames_are_root_first_and_callers_point_into_their_calls(bench, own) -> None:
    leaf, caller, root = own.addresses[:3]
    stack_hash = bench.normalizer.add(own.raw(leaf, caller, root))
    assert bench.frames(stack_hash) == [
        (own.libc, own.offset(root) - 1),
        (own.libc, own.offset(caller) - 1),
        (own.libc, own.offset(leaf)),
    ]


def test_the_kernel_part_follows_the_user_part(bench, own) -> None:
    leaf, caller = own.addresses[:2]
    kernel = (KERNEL_BASE + 0x300, KERNEL_BASE + 0x200)
    stack_hash = bench.normalizer.add(own.raw(leaf, caller, kernel=kernel))
    assert bench.frames(stack_hash) == [
        (own.libc, own.offset(caller) - 1),
        (own.libc, own.offset(leaf)),
        ("vmlinux", 0x1FF),
        ("vmlinux", 0x300),
    ]


def test_an_address_is_a_leaf_here_and_a_caller_there(bench, own) -> None:
    address, other = own.addresses[:2]
    first = bench.normalizer.add(own.raw(address, other, key=1))
    second = bench.normalizer.add(own.raw(other, address, key=2))
    assert bench.frames(first)[-1] == (own.libc, own.offset(address))
    assert bench.frames(second)[0] == (own.libc, own.offset(address) - 1)


def test_the_same_stack_has_the_same_hash_in_another_process(bench, own) -> None:
    """Two processes with their C library at different addresses."""
    code = "import ctypes; print(ctypes.cast(ctypes.CDLL(None).qsort, ctypes.c_void_p).value)"
    child = subprocess.Popen(
        [sys.executable, "-c", code + "; import sys; sys.stdout.flush(); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    address = int(child.stdout.readline())
    key = ProcessKey(child.pid, read_start_ticks(child.pid) * TICK_NS, 0)
    there = bench.normalizer.add(RawStack(2, key, "python", 1, (), (address,), False))
    here = bench.normalizer.add(own.raw(own.addresses[0], key=1))
    child.communicate(b"\n")
    assert there == here
    assert address != own.addresses[0]


def test_a_stack_counted_later_is_found_by_its_key(bench, own) -> None:
    raw = own.raw(own.addresses[0])
    stack_hash = bench.normalizer.add(raw)
    assert bench.normalizer.find(_key(raw)) == stack_hash
    bench.normalizer.end_interval()
    assert bench.normalizer.find(_key(raw)) == stack_hash
    assert bench.normalizer.counts == {}


def test_a_stack_that_never_came_is_one_named_frame(bench, own) -> None:
    stack_hash = bench.normalizer.find(_key(own.raw(1, key=99)))
    assert bench.frames(stack_hash) == [("[unknown]", "[stack lost]")]
    assert bench.normalizer.counts == {"stack_lost": 1}


def test_a_known_stack_is_defined_once_until_it_is_asked_for_again(bench, own) -> None:
    raw = own.raw(own.addresses[0])
    stack_hash = bench.normalizer.add(raw)
    assert list(bench.definitions.take()) == [stack_hash]
    bench.normalizer.add(raw)
    assert bench.definitions.take() == {}
    bench.definitions.forget([stack_hash])
    bench.normalizer.add(raw)
    assert list(bench.definitions.take()) == [stack_hash]


def test_a_process_that_has_ended_is_one_unmapped_frame(bench) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    key = ProcessKey(child.pid, 1, 0)
    raw = RawStack(1, key, "x", 1, (KERNEL_BASE + 5,), (0x1000, 0x2000, 0x3000), False)
    stack_hash = bench.normalizer.add(raw)
    assert bench.frames(stack_hash) == [("[unknown]", "[unmapped]"), ("vmlinux", 5)]
    assert bench.normalizer.counts == {"process_gone": 1}


def test_another_process_under_the_same_id_is_not_taken_for_it(bench, own) -> None:
    wrong = own.key._replace(start_ns=own.key.start_ns - 100 * TICK_NS)
    raw = RawStack(1, wrong, "x", 1, (), own.addresses, False)
    assert bench.frames(bench.normalizer.add(raw)) == [("[unknown]", "[unmapped]")]


def test_a_walk_ends_where_it_goes_astray(bench, own) -> None:
    """Behind a word that is no address in any mapping there are only more such words."""
    raw = own.raw(own.addresses[0], own.addresses[1], 0x10, own.addresses[2], 0x30)
    other = own.raw(own.addresses[0], own.addresses[1], 0x40, 0x50, own.addresses[3], key=2)
    stack_hash = bench.normalizer.add(raw)
    assert bench.frames(stack_hash) == [
        ("[unknown]", "[unmapped]"),
        (own.libc, own.offset(own.addresses[1]) - 1),
        (own.libc, own.offset(own.addresses[0])),
    ]
    assert bench.normalizer.add(other) == stack_hash
    assert bench.normalizer.counts == {"stack_astray": 2}


def test_an_unmapped_leaf_does_not_end_the_walk(bench, own) -> None:
    raw = own.raw(0x10, own.addresses[0])
    assert bench.frames(bench.normalizer.add(raw)) == [
        (own.libc, own.offset(own.addresses[0]) - 1),
        ("[unknown]", "[unmapped]"),
    ]


def test_code_without_a_file_is_jit(bench, own) -> None:
    with mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC | mmap.PROT_WRITE) as code:
        byte = ctypes.c_char.from_buffer(code)
        address = ctypes.addressof(byte)
        stack_hash = bench.normalizer.add(own.raw(address, address + 16, address + 32))
        frames = bench.frames(stack_hash)
        del byte
    assert frames == [("[unknown]", "[jit]")]


def test_the_vdso_is_named(bench, own) -> None:
    [vdso] = [entry for entry in own.mappings.entries if entry.path == b"[vdso]"]
    assert bench.frames(bench.normalizer.add(own.raw(vdso.start + 64))) == [("[unknown]", "[vdso]")]


def test_a_library_loaded_later_is_found_after_a_refresh(
    bench, own, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library = tmp_path / "later.so"
    source = tmp_path / "later.c"
    source.write_text("int later(void) { return 1; }")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    bench.normalizer.add(own.raw(own.addresses[0]))  # mappings are read now

    address = ctypes.cast(ctypes.CDLL(str(library)).later, ctypes.c_void_p).value
    assert address is not None
    raw = own.raw(address, key=5)
    assert bench.frames(bench.normalizer.add(raw)) == [("[unknown]", "[unmapped]")]
    for process in bench.normalizer._addresses.processes.values():
        process.space.refresh_s = 0.0
    monkeypatch.setattr(normalize, "UNSETTLED_S", 0.0)
    bench.normalizer.end_interval()
    [(module, offset)] = bench.frames(bench.normalizer.add(raw))
    assert module == "later.so"
    # A small position-independent library has its code at file offset and address alike.
    text = subprocess.run(["nm", library], capture_output=True, text=True, check=True).stdout
    assert f"{offset:016x} T later" in text


def test_a_kernel_thread_has_a_kernel_part_only(bench) -> None:
    raw = RawStack(1, ProcessKey(2, 0, 0), "kthreadd", 1, (KERNEL_BASE,), (), True)
    assert bench.frames(bench.normalizer.add(raw)) == [("vmlinux", 0)]


def test_a_stack_without_addresses_is_unmapped_and_counted(bench) -> None:
    raw = RawStack(1, ProcessKey(2, 0, 0), "kthreadd", 1, (), (), True)
    assert bench.frames(bench.normalizer.add(raw)) == [("[unknown]", "[unmapped]")]
    assert bench.normalizer.counts == {"stack_empty": 1}


def test_stacks_longer_than_the_wire_allows_are_cut_at_the_leaf_end(bench, own) -> None:
    addresses = tuple(own.addresses[n % 4] for n in range(400))
    stack_hash = bench.normalizer.add(own.raw(*addresses))
    assert len(bench.frames(stack_hash)) == 256


def test_forgotten_frames_are_found_again(bench, own, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "MAX_CACHED_FRAMES", 3)
    hashes = [bench.normalizer.add(own.raw(*own.addresses, key=key)) for key in range(4)]
    assert len(set(hashes)) == 1


def test_a_program_without_a_readable_file_keeps_its_name(bench, tmp_path: Path) -> None:
    """Deleted, and without a build id in memory either."""
    script = tmp_path / "ghost"
    subprocess.run(
        ["gcc", "-x", "c", "-Wl,--build-id=none", "-o", script, "-"],
        input=b'#include <unistd.h>\nint main(void) { write(1, "x", 1); pause(); }',
        check=True,
    )
    child = subprocess.Popen([script], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read(1)
    key = ProcessKey(child.pid, read_start_ticks(child.pid) * TICK_NS, 0)
    maps = Path(f"/proc/{child.pid}/maps").read_text().splitlines()
    start = next(int(line.split("-")[0], 16) for line in maps if "r-xp" in line and "ghost" in line)
    script.unlink()
    frames = bench.frames(bench.normalizer.add(RawStack(1, key, "g", 1, (), (start,), False)))
    child.kill()
    child.communicate()
    [(module, name)] = frames
    assert (module, name) in {("ghost", 0x1000), ("[unknown]", "[ghost]")}


@pytest.mark.parametrize("end", [StackEnd.COMPLETE, StackEnd.NO_ROWS, StackEnd.READ_FAULT])
def test_a_stack_walked_by_rows_is_taken_as_it_is(bench, own, end) -> None:
    leaf, caller, root = own.addresses[:3]
    raw = own.raw(leaf, caller, 64, root)._replace(end=end)
    assert bench.frames(bench.normalizer.add(raw)) == [
        (own.libc, own.offset(root) - 1),
        ("[unknown]", "[unmapped]"),
        (own.libc, own.offset(caller) - 1),
        (own.libc, own.offset(leaf)),
    ]


@pytest.mark.parametrize("end", [StackEnd.NO_MAPPING, StackEnd.NO_USER])
def test_a_walk_by_frame_pointers_alone_ends_where_it_goes_astray(bench, own, end) -> None:
    leaf, caller, root = own.addresses[:3]
    raw = own.raw(leaf, caller, 64, root)._replace(end=end)
    assert bench.frames(bench.normalizer.add(raw)) == [
        ("[unknown]", "[unmapped]"),
        (own.libc, own.offset(caller) - 1),
        (own.libc, own.offset(leaf)),
    ]


def test_what_a_signal_interrupted_is_no_return_address(bench, own) -> None:
    handler, end, interrupted, root = own.addresses
    bench.normalizer.signals = lambda _: frozenset({end})
    raw = own.raw(handler, end, interrupted, root)._replace(end=StackEnd.COMPLETE)
    for _ in range(2):  # found out, then known
        assert bench.frames(bench.normalizer.add(raw)) == [
            (own.libc, own.offset(root) - 1),
            (own.libc, own.offset(interrupted)),
            (own.libc, own.offset(end)),
            (own.libc, own.offset(handler)),
        ]


def test_a_name_that_comes_later_is_taken_also_where_an_address_has_no_mapping(bench, own) -> None:
    name = bytes(PythonNameC(0, 7, 12, 4, 5, 1, 1, (0, 0), b"main", b"/a.py"))
    raw = own.raw(own.addresses[0], 0x10)._replace(python=(7,))
    unnamed = bench.normalizer.add(raw)
    assert bench.normalizer.counts["python_unnamed"] == 1

    named = bench.normalizer.add(raw._replace(python_names=(name,)))

    assert named != unnamed
    assert bench.normalizer.counts["python_unnamed"] == 1
    assert bench.normalizer.add(raw) == named
