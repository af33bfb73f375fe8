"""Names for file offsets, as the local symbolizer finds them."""

import lzma
import os
import subprocess
from pathlib import Path

import pytest

from node_agent.symbols.demangle import demangle
from node_agent.symbols.elf import PT_LOAD, Segment
from node_agent.symbols.errors import ElfError
from node_agent.symbols.functions import Functions, read_functions
from node_agent.symbols.local import name_offsets
from wire.pprof import Line
from wire.schema import ModuleKind

LOAD = Segment(PT_LOAD, 5, 0x1000, 0x401000, 0, 0x1000, 0x1000, 0x1000)


def _nm(path: Path, name: str) -> int:
    text = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout
    return next(int(line.split()[0], 16) for line in text.splitlines() if line.endswith(" " + name))


def test_offsets_map_through_segments_to_functions() -> None:
    rows = [(0x401100, 0x10, "first"), (0x401110, 0, "open_ended"), (0x401200, 0x20, "last")]
    functions = Functions(rows, [LOAD])
    cases = {
        0x1100: "first",
        0x110F: "first",
        0x1110: "open_ended",
        0x11FF: "open_ended",
        0x1200: "last",
        0x1220: None,  # beyond its size: a function that has no symbol
        0x10FF: None,
        0x0FFF: None,  # in no segment
        0x2000: None,
    }
    assert {offset: functions.name_at(offset) for offset in cases} == cases


def test_static_and_exported_functions_of_a_program(c_program: Path, opened) -> None:
    with opened(c_program) as (read, size):
        functions = read_functions(read, size)
    for name in ("helper", "exported", "main"):
        assert functions.name_at(_nm(c_program, name) + 1) == name


def test_a_stripped_library_still_has_its_dynamic_symbols(libc: Path, opened) -> None:
    with opened(libc) as (read, size):
        functions = read_functions(read, size)
    text = subprocess.run(["nm", "-D", libc], capture_output=True, text=True, check=True).stdout
    address = next(int(line.split()[0], 16) for line in text.splitlines() if " qsort@" in line)
    assert functions.name_at(address + 2) == "qsort"


def test_minimal_debug_data_is_unpacked(c_program: Path, tmp_path: Path, opened) -> None:
    """The way of Fedora: https://fedoraproject.org/wiki/Features/MiniDebugInfo."""
    debug, stripped = tmp_path / "debug", tmp_path / "stripped"
    subprocess.run(["objcopy", "--only-keep-debug", c_program, debug], check=True)
    subprocess.run(["strip", "-o", stripped, c_program], check=True)
    packed = tmp_path / "debug.xz"
    packed.write_bytes(lzma.compress(debug.read_bytes()))
    subprocess.run(["objcopy", "--add-section", f".gnu_debugdata={packed}", stripped], check=True)
    with opened(stripped) as (read, size):
        functions = read_functions(read, size)
    assert functions.name_at(_nm(c_program, "helper")) == "helper"


def test_damaged_debug_data_only_loses_its_names(c_program: Path, tmp_path: Path, opened) -> None:
    stripped, junk = tmp_path / "stripped", tmp_path / "junk"
    junk.write_bytes(b"\xfd7zXZ\0" + bytes(100))
    subprocess.run(["strip", "-o", stripped, c_program], check=True)
    subprocess.run(["objcopy", "--add-section", f".gnu_debugdata={junk}", stripped], check=True)
    with opened(stripped) as (read, size):
        assert read_functions(read, size).name_at(_nm(c_program, "helper")) is None


def test_other_files_have_no_functions() -> None:
    with pytest.raises(ElfError):
        read_functions(lambda at, size: b"#!/bin/sh"[at : at + size], 9)


@pytest.mark.parametrize(
    ("name", "readable"),
    [
        ("main", "main"),
        ("_Z", "_Z"),
        ("_ZN6shapes4Area3sumEi", "shapes::Area::sum"),
        ("_ZNSt6vectorIiSaIiEE4sizeEv", "std::vector<int, std::allocator<int>>::size"),
        ("_ZN4core3fmt5write17h0123456789abcdefE", "core::fmt::write"),
        (
            "_ZN50_$LT$T$u20$as$u20$core..convert..From$LT$T$GT$$GT$4from17h0123456789abcdefE",
            "<T as core::convert::From<T>>::from",
        ),
        ("_Z" + "x" * 5000, "_Z" + "x" * 5000),
    ],
)
def test_names_are_demangled(name: str, readable: str) -> None:
    assert demangle(name) == readable


def test_a_module_that_cannot_be_read_leaves_the_others_their_names(
    cpp_program: Path, tmp_path: Path
) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh")
    offset = _nm(cpp_program, "_ZN6shapes4Area3sumEi")  # position independent: address is offset
    descriptors = [os.open(path, os.O_RDONLY) for path in (script, cpp_program)]
    request = [
        {"kind": ModuleKind.NATIVE, "fd": fd, "name": "x", "offsets": [offset]}
        for fd in descriptors
    ]
    assert list(name_offsets(request)) == [[[]], [[Line("shapes::Area::sum")]]]
    for descriptor in descriptors:
        os.close(descriptor)
