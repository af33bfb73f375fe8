"""Rows of whole files, against binutils and against what compilers are known to emit."""

import ctypes
import os
import re
import shutil
import subprocess
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from node_agent.processes.mappings import parse_maps
from node_agent.symbols.elf import HEADER
from node_agent.unwind.elf_rows import build_rows
from node_agent.unwind.errors import NoRowsError
from node_agent.unwind.gaps import MIN_GAP_BYTES
from node_agent.unwind.rules import Rule

RowsOf = Callable[[Path], Any]
CFA = {"rsp": Rule.CFA_RSP, "rbp": Rule.CFA_RBP}
SOURCE = """
#include <string.h>
extern int puts(const char *);
__attribute__((noinline)) int realigned(int x) {
    volatile _Alignas(64) char room[256];
    memset((char *)room, x, sizeof room);
    return room[x];
}
int main(int argc, char **argv) { puts(argv[0]); return realigned(argc); }
"""
REALIGNED = ("-O2", "-mavx2", "-fcf-protection=none", "-fno-pie", "-no-pie")


def described(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """Address, CFA, rbp and return address of each row that readelf shows."""
    command = ["readelf", "--wide", "--debug-dump=frames-interp", path]
    # It finds fault with other sections of some C libraries.
    text = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    columns: list[str] = []
    for line in text.splitlines():
        if " CIE " in line or not line:
            columns = []
        elif line.strip().startswith("LOC"):
            columns = line.split()
        elif columns and re.match(r"^[0-9a-f]{16} ", line) and "FDE" not in line:
            fields = dict(zip(columns, line.split(), strict=False))
            address = int(fields["LOC"], 16)
            if address:
                yield address, fields["CFA"], fields.get("rbp", "u"), fields["ra"]


def test_libc_has_the_rows_that_readelf_shows(libc: Path, rows_of: RowsOf) -> None:
    table = rows_of(libc)
    compared = 0
    previous: tuple[int, str, str, str] | None = None
    for row in described(libc):
        # Of rows at one address the last one holds.
        if previous is not None and previous[0] != row[0]:
            compared += _agrees(table, *previous)
        previous = row
    assert compared > 20_000


def _agrees(table: Any, address: int, cfa: str, rbp: str, return_address: str) -> bool:
    match = re.fullmatch(r"(rsp|rbp)\+(\d+)", cfa)
    if match is None or return_address != "c-8" or rbp in ("exp", "v") or rbp[0] == "r":
        return False
    saved = int(rbp[1:]) if rbp[0] == "c" else 0
    found = table.at(address)
    expected = CFA[match[1]], int(match[2]), saved
    # The only entry point that describes itself otherwise is the file's own.
    assert found == expected or found[0] in (Rule.END, Rule.SIGNAL), hex(address)
    return True


def test_every_form_of_a_rule(
    corpus: Path, rows_of: RowsOf, addresses: Callable[[Path], dict[str, int]]
) -> None:
    table, at = rows_of(corpus / "static.elf"), addresses(corpus / "static.elf")
    assert table.at(at["_start"]) == (Rule.END, 0, 0)
    assert table.at(at["pushes"]) == (Rule.CFA_RSP, 8, 0)
    assert table.at(at["pushes"] + 2) == (Rule.CFA_RSP, 24, -16)
    assert table.at(at["pushes"] + 200) == (Rule.CFA_RBP, 24, -16)
    assert table.at(at["realigned"] + 5) == (Rule.CFA_RSP, 8, 0)
    assert table.at(at["realigned"] + 9) == (Rule.UNSUPPORTED, 16, 0)
    assert table.at(at["realigned"] + 19) == (Rule.CFA_RBP_DEREF, -8, 0)
    assert table.at(at["stored"] + 19) == (Rule.CFA_RSP_DEREF, 0x218, (1 | -2 << 3) * 8)
    assert table.at(at["restore"] + 1) == (Rule.SIGNAL, 0, 0)
    assert table.at(at["linkage"] + 20) == (Rule.CFA_PLT, 0, 0)
    assert table.at(at["large"]) == (Rule.UNSUPPORTED, 8, 0)
    assert table.at(at["silent"]) == (Rule.CFA_RSP, 8, 0)
    assert table.at(at["silent"] + 8) == (Rule.CFA_RSP, 48, -16)
    assert table.rows.notes["CFA in another register than rsp and rbp"] == 4


@pytest.mark.parametrize("name", ["stripped", "no_header", "debug_frame", "augmented"])
def test_other_ways_to_the_same_rows(name: str, corpus: Path, rows_of: RowsOf) -> None:
    expected = rows_of(corpus / "static.elf")
    found = rows_of(corpus / f"{name}.elf")
    assert len(found.words) == len(expected.words)
    skipped = found.pcs[0] - expected.pcs[0]
    assert [pc - skipped for pc in found.pcs] == expected.pcs
    assert [word >> 32 for word in found.words] == [word >> 32 for word in expected.words]


def test_without_section_headers(corpus: Path) -> None:
    data = (corpus / "shared.elf").read_bytes()
    fields = list(HEADER.unpack_from(data))
    fields[6] = fields[11] = fields[12] = fields[13] = 0
    headless = HEADER.pack(*fields) + data[HEADER.size :]
    whole = build_rows(lambda at, size: data[at : at + size], len(data))
    found = build_rows(lambda at, size: headless[at : at + size], len(headless))
    functions = {word for word in memoryview(whole.rows).cast("Q") if word >> 56}
    assert functions <= set(memoryview(found.rows).cast("Q"))


def test_rows_ascend_and_do_not_repeat_themselves(libc: Path, rows_of: RowsOf) -> None:
    table = rows_of(libc)
    assert all(a < b for a, b in zip(table.pcs, table.pcs[1:], strict=False))
    gaps = [i for i, word in enumerate(table.words) if word >> 32 == 0]
    assert all(table.pcs[i + 1] - table.pcs[i] >= MIN_GAP_BYTES for i in gaps[:-1])
    assert table.rows.segments[0].offset > 0


def test_code_that_can_not_be_read_has_only_the_rows_that_are_described(
    corpus: Path, addresses: Callable[[Path], dict[str, int]]
) -> None:
    data, at = (corpus / "static.elf").read_bytes(), addresses(corpus / "static.elf")

    def read(offset: int, size: int) -> bytes:  # all but the code
        return b"" if 0xB0 <= offset < 0x2B6 else data[offset : offset + size]

    rows = build_rows(read, len(data))
    words = memoryview(rows.rows).cast("Q")
    pcs = [word & 0xFFFFFFFF for word in words]
    held = {
        name: words[bisect_right(pcs, at[name] + skipped - rows.base) - 1] >> 32
        for name, skipped in (("pushes", 2), ("realigned", 5), ("silent", 8))
    }
    assert held == {"pushes": 0x01FE0003, "realigned": 2, "silent": 0}


def test_a_realigned_stack_of_gcc(
    compile_c: Any, rows_of: RowsOf, addresses: Callable[[Path], dict[str, int]]
) -> None:
    program = compile_c("realigned", SOURCE, *REALIGNED)
    table, at = rows_of(program), addresses(program)
    rules = {table.at(at["realigned"] + byte) for byte in range(80)}
    assert any(rule in (Rule.CFA_RBP_DEREF, Rule.CFA_RBP) for rule, _, _ in rules)
    assert table.at(at["_start"])[0] is Rule.END


def test_a_linkage_table_that_nothing_describes(
    compile_c: Any, rows_of: RowsOf, addresses: Callable[[Path], dict[str, int]]
) -> None:
    flags = ("-O2", "-Wl,-z,lazy", "-fcf-protection=none", "-fno-pie", "-no-pie")
    usual = rows_of(compile_c("lazy", SOURCE, *flags))
    bare = compile_c("lazy_bare", SOURCE, *flags, "-Wl,--no-ld-generated-unwind-info")
    headers = subprocess.run(
        ["readelf", "--wide", "--sections", bare], check=True, capture_output=True, text=True
    ).stdout
    match = re.search(r" \.plt +PROGBITS +([0-9a-f]+) ", headers)
    assert match is not None
    plt = int(match[1], 16)
    found = rows_of(bare)
    for byte in (0, 5, 6, 15, 16, 31):
        assert found.at(plt + byte) == usual.at(plt + byte)
    assert found.at(plt + 16) == (Rule.CFA_PLT, 0, 0)


def test_an_entry_point_ends_stacks_even_if_its_description_does_not_say_so(
    compile_c: Any, rows_of: RowsOf, addresses: Callable[[Path], dict[str, int]]
) -> None:
    source = 'void _start(void) { for (;;) __asm__ volatile("nop"); } void next(void) {}'
    program = compile_c("plain_start", source, "-O0", "-nostdlib", "-static")
    table, at = rows_of(program), addresses(program)
    assert {table.at(at["_start"] + byte)[0] for byte in range(6)} == {Rule.END}
    assert table.at(at["next"]) == (Rule.CFA_RSP, 8, 0)


def test_musl_has_rows_although_it_describes_nothing(
    compile_c: Any, rows_of: RowsOf, addresses: Callable[[Path], dict[str, int]]
) -> None:
    program = compile_c("musl", SOURCE, "-O2", "-static", "-no-pie", compiler="musl-gcc")
    table, at = rows_of(program), addresses(program)
    assert table.at(at["_start"] + 8)[0] is Rule.END
    # The frames between `_start` and `main`: a jump, a jump, and this one, which calls `main`.
    assert table.at(at["_start_c"]) == (Rule.CFA_RSP, 8, 0)
    assert table.at(at["__libc_start_main"]) == (Rule.CFA_RSP, 8, 0)
    code = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", "--disassemble=libc_start_main_stage2", program],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    called = [line for line in code.splitlines() if "call   *" in line]
    address = int(called[0].split(":")[0], 16)
    pushes = code.split("call   *")[0].count("push ")
    reserved = 8 * code.split("call   *")[0].count("sub    $0x8,%rsp")
    assert table.at(address)[:2] == (Rule.CFA_RSP, 8 + 8 * pushes + reserved)
    assert table.rows.notes["bytes of code followed for want of unwind information"] > 1_000


def test_the_vdso() -> None:
    entries = parse_maps(Path("/proc/self/maps").read_bytes()).entries
    vdso = next(entry for entry in entries if entry.path == b"[vdso]")
    image = ctypes.string_at(vdso.start, vdso.end - vdso.start)
    rows = build_rows(lambda at, size: image[at : at + size], len(image))
    rules = set(rows.rows[7::8])
    assert len(rows.rows) > 8 * 10
    assert Rule.CFA_RSP in rules


def test_a_go_program_keeps_frame_pointers(tmp_path: Path, rows_of: RowsOf) -> None:
    (tmp_path / "main.go").write_text("package main\nfunc main() { println(1) }\n")
    (tmp_path / "go.mod").write_text("module sample\n")
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod"}
    go = shutil.which("go") or "/usr/lib/go/bin/go"
    subprocess.run([go, "build", "-o", "sample"], cwd=tmp_path, check=True, env=environment)
    rows = rows_of(tmp_path / "sample").rows
    assert rows.frame_pointers
    assert rows.rows == b""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not an ELF file"),
        (b"#!/bin/sh\n", "not an ELF file"),
        (HEADER.pack(b"\x7fELF\x02\x01\x01" + bytes(9), 3, 183, 1, 0, 0, 0, 0, 64, 56, 0, 64, 0, 0),
         "machine 183"),
        (HEADER.pack(b"\x7fELF\x02\x01\x01" + bytes(9), 3, 62, 1, 0, 0, 0, 0, 64, 56, 0, 64, 0, 0),
         "without executable segments"),
    ],
)  # fmt: skip
def test_what_has_no_rows_is_refused_in_words(content: bytes, words: str) -> None:
    with pytest.raises(NoRowsError, match=words):
        build_rows(lambda at, size: content[at : at + size], len(content))
