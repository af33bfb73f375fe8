"""Lines of compiled programs, as binutils tells them."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from node_agent.symbols.dwarf_lines import Sections, find_lines
from node_agent.symbols.functions import read_functions

Compile = Callable[..., Path]
SOURCE = """
static inline __attribute__((always_inline)) int inner(int x) { volatile int y = x; return y + 1; }
__attribute__((noinline)) int outer(int x) {
  int sum = 0;
  for (int i = 0; i < x; i++)
    sum += inner(i);
  return sum;
}
int main(int argc, char **argv) { return outer(argc); }
"""


def told_by_addr2line(program: Path, addresses: list[int]) -> list[tuple[str, int]]:
    shown = subprocess.run(
        ["addr2line", "-e", program, *map(hex, addresses)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    places = []
    for line in shown.splitlines():
        file, _, number = line.partition(" (")[0].rpartition(":")
        places.append((Path(file).name, int(number) if number.isdecimal() else 0))
    return places


@pytest.mark.parametrize(
    "flags",
    [("-gdwarf-3",), ("-gdwarf-4",), ("-gdwarf-5",), ("-g", "-gz=zlib"), ("-g", "-O0")],
    ids=" ".join,
)
def test_lines_agree_with_binutils(compile_program: Compile, opened, flags) -> None:
    program = compile_program("lines" + "".join(flags), SOURCE, "-O2", "-no-pie", *flags)
    listed = subprocess.run(["nm", "-S", program], check=True, capture_output=True, text=True)
    rows = [line.split() for line in listed.stdout.splitlines()]
    addresses = [
        address
        for row in rows
        if row[-1] in ("outer", "main")
        for address in range(int(row[0], 16), int(row[0], 16) + int(row[1], 16))
    ]
    assert len(addresses) > 20
    with opened(program) as (read, size):
        functions = read_functions(read, size)
    # -no-pie: the first segment begins at 0x400000, and file offsets count from there
    found = functions.lines_at([address - 0x400000 for address in addresses])
    places = [(Path(lines[0].file).name, lines[0].line) for lines in found]
    assert places == told_by_addr2line(program, addresses)
    assert {file for file, _ in places} == {f"{program.name}.c"}


def test_a_file_of_debug_information_gives_lines_and_names(
    compile_program: Compile, opened, tmp_path: Path
) -> None:
    program = compile_program("separate", SOURCE, "-O1", "-g")
    debug, stripped = tmp_path / "debug", tmp_path / "stripped"
    subprocess.run(["objcopy", "--only-keep-debug", program, debug], check=True)
    subprocess.run(["strip", "-s", "-o", stripped, program], check=True)
    listed = subprocess.run(["nm", program], check=True, capture_output=True, text=True).stdout
    (address,) = [int(row.split()[0], 16) for row in listed.splitlines() if row.endswith(" outer")]
    with opened(stripped) as (read, size), opened(debug) as inner:
        assert read_functions(read, size).lines_at([address]) == [[]]
        ((line,),) = read_functions(read, size, inner).lines_at([address])
    assert line.function == "outer"
    assert [(Path(line.file).name, line.line)] == told_by_addr2line(program, [address])


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff" * 40,
        b"\x08\0\0\0\x09\0abcdef",
        (10).to_bytes(4, "little") + b"\x05\0\x08\0" * 3,
    ],
)
def test_damaged_tables_say_nothing(line: bytes) -> None:
    assert find_lines(Sections(line), [0, 5]) == {}
