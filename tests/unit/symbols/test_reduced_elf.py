"""The reduced file names the same functions as the whole one, for the library that the centre
uses."""

import subprocess
import sys
from pathlib import Path

import pytest
from symbolic.debuginfo import Archive

from node_agent.symbols.build_ids import read_build_id
from node_agent.symbols.elf import PT_LOAD, read_header, read_segments
from node_agent.symbols.errors import ElfError, SymbolError
from node_agent.symbols.reduced_elf import reduce_elf

LIMIT = 64 << 20


def _reader(data: bytes):
    return lambda offset, size: data[offset : offset + size]


def _symcache(data: bytes):
    [found] = Archive.from_bytes(data).iter_objects()
    return found.make_symcache()


def _defined_functions(path: Path) -> dict[int, set[str]]:
    """Names by address, as nm tells them."""
    names: dict[int, set[str]] = {}
    for flags in ((), ("-D",)):
        text = subprocess.run(
            ["nm", "--defined-only", *flags, path], capture_output=True, text=True, check=False
        ).stdout
        for line in text.splitlines():
            address, kind, name = line.split()[:3]
            if kind in "tTiW":
                names.setdefault(int(address, 16), set()).add(name.split("@")[0])
    return names


@pytest.fixture(params=["c", "c static", "c no pie", "cpp", "libc", "python"])
def program(request, compile_program, c_program, cpp_program, libc) -> Path:
    source = "int leaf(int x) { return x; } int main(int c, char **v) { return leaf(c); }"
    if request.param == "c static":
        return compile_program("static", source, "-static")
    if request.param == "c no pie":
        return compile_program("no_pie", source, "-no-pie")
    programs = {"c": c_program, "cpp": cpp_program, "libc": libc}
    return programs.get(request.param) or Path(sys.executable).resolve()


def test_functions_resolve_as_from_the_whole_file(program: Path) -> None:
    data = program.read_bytes()
    reduced = reduce_elf(_reader(data), len(data), LIMIT)
    assert len(reduced) < len(data)
    whole, part = _symcache(data), _symcache(reduced)
    segments = read_segments(_reader(reduced), read_header(_reader(reduced)))
    base = next(s.vaddr for s in segments if s.type == PT_LOAD)
    resolved = 0
    for address, names in _defined_functions(program).items():
        expected = [match.symbol for match in whole.lookup(address - base)]
        found = [match.symbol for match in part.lookup(address - base)]
        assert found == expected, hex(address)
        resolved += any(name in names for name in found)
    assert resolved > 2


def test_an_address_inside_a_function_resolves_to_it(cpp_program: Path) -> None:
    data = cpp_program.read_bytes()
    symcache = _symcache(reduce_elf(_reader(data), len(data), LIMIT))
    name = "_ZN6shapes4Area3sumEi"
    [address] = [at for at, names in _defined_functions(cpp_program).items() if name in names]
    [match] = symcache.lookup(address + 4)
    assert (match.symbol, match.sym_addr) == (name, address)


def test_file_offsets_translate_as_before(program: Path) -> None:
    data = program.read_bytes()
    reduced = reduce_elf(_reader(data), len(data), LIMIT)

    def loaded(content: bytes) -> list[tuple[int, ...]]:
        read = _reader(content)
        segments = read_segments(read, read_header(read))
        return [tuple(segment) for segment in segments if segment.type == PT_LOAD]

    assert loaded(reduced) == loaded(data)


def test_the_build_id_stays(program: Path) -> None:
    data = program.read_bytes()
    reduced = reduce_elf(_reader(data), len(data), LIMIT)
    whole_id = read_build_id(_reader(data), len(data))
    assert read_build_id(_reader(reduced), len(reduced)) == whole_id
    [found] = Archive.from_bytes(reduced).iter_objects()
    assert found.code_id == whole_id.hex()


def test_readelf_finds_no_fault(program: Path, tmp_path: Path) -> None:
    data = program.read_bytes()
    path = tmp_path / "reduced"
    path.write_bytes(reduce_elf(_reader(data), len(data), LIMIT))
    done = subprocess.run(["readelf", "-hlSsW", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "rror" not in done.stderr + done.stdout.partition("Symbol table")[0]


def test_code_and_data_are_left_out(c_program: Path) -> None:
    data = c_program.read_bytes()
    reduced = reduce_elf(_reader(data), len(data), LIMIT)
    code = data[0x1000:0x1040]
    assert code in data
    assert code not in reduced


def test_a_file_without_symbols_says_so(c_program: Path, compile_program, tmp_path: Path) -> None:
    static = compile_program("static_to_strip", "int main(void) { return 0; }", "-static")
    stripped = tmp_path / "stripped"
    subprocess.run(["strip", "-o", stripped, static], check=True)
    data = stripped.read_bytes()
    with pytest.raises(SymbolError, match="stripped of every symbol table"):
        reduce_elf(_reader(data), len(data), LIMIT)


def test_too_many_symbols_say_so(c_program: Path) -> None:
    data = c_program.read_bytes()
    with pytest.raises(SymbolError, match="too large"):
        reduce_elf(_reader(data), len(data), 100)


def test_a_script_is_no_elf_file() -> None:
    with pytest.raises(ElfError):
        reduce_elf(_reader(b"#!/bin/sh\nexit 0\n"), 17, LIMIT)


@pytest.mark.parametrize("odd", [b"\xff\xfe\x80f", b"\xed\xa0\x80f", b"le\xc3\x28"], ids=repr)
def test_a_name_that_is_no_text_leaves_the_others_theirs(compile_program, odd: bytes) -> None:
    """GIVEN a symbol name with bytes that are no UTF-8, as the maker of the file put them there."""
    source = "int leaf(int x) { return x; } int main(int c, char **v) { return leaf(c); }"
    data = compile_program("odd", source, "-static").read_bytes()
    assert data.count(b"\0leaf\0") == 1
    odd_data = data.replace(b"\0leaf\0", b"\0" + odd + b"\0")

    whole, part = _symcache(data), _symcache(reduce_elf(_reader(odd_data), len(odd_data), LIMIT))

    segments = read_segments(_reader(data), read_header(_reader(data)))
    base = next(s.vaddr for s in segments if s.type == PT_LOAD)
    names = []
    for address in _defined_functions(compile_program("odd", source, "-static")):
        expected = [match.symbol for match in whole.lookup(address - base)]
        found = [match.symbol for match in part.lookup(address - base)]
        if expected != ["leaf"]:
            assert found == expected
        names += found
    assert "main" in names
    assert odd.decode("utf-8", "surrogateescape").encode("utf-8", "replace").decode() in names
