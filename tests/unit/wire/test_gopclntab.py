"""Go's own table, of stripped programs that are built here, against what Go's tools say."""

import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from wire.gopclntab import GoTable, GoTableError, open_table

_SOURCE = """package main

import "fmt"

type Till struct{ n int }

func inner(x int) int { return x*3 + 1 }

func (t *Till) Sum(x int) int {
	s := 0
	for i := 0; i < x; i++ {
		s += inner(i)
	}
	return s
}

//go:noinline
func outer(x int) int {
	t := &Till{x}
	return t.Sum(x)
}

func main() { fmt.Println(outer(1000)) }
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same Go program whole and stripped of every symbol."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("no go")
    folder = tmp_path_factory.mktemp("go")
    (folder / "till.go").write_text(_SOURCE)
    for name, flags in (("whole", []), ("stripped", ["-ldflags=-s -w"])):
        subprocess.run([go, "build", *flags, "-o", name, "till.go"], check=True, cwd=folder)
    return folder / "whole", folder / "stripped"


@pytest.fixture(scope="module")
def table(programs: tuple[Path, Path]) -> Callable[[Path], GoTable]:
    """Opens the table of a program, its sections found by readelf."""

    def open_program(path: Path) -> GoTable:
        listed = subprocess.run(
            ["readelf", "-SW", path], check=True, capture_output=True, text=True
        ).stdout
        places = {
            name: tuple(int(number, 16) for number in numbers)
            for name, *numbers in re.findall(
                r"\] (\S+)\s+\S+\s+([0-9a-f]+) ([0-9a-f]+) ([0-9a-f]+)", listed
            )
        }
        content = path.read_bytes()
        address, offset, size = places[".gopclntab"]
        _, module_at, module_size = places.get(".go.module", (0, 0, 0))
        return open_table(
            content[offset : offset + size],
            address,
            places[".text"][0],
            content[module_at : module_at + module_size],
        )

    return open_program


def test_a_stripped_program_has_functions_files_and_lines(
    programs: tuple[Path, Path], table: Callable[[Path], GoTable]
) -> None:
    go = shutil.which("go")
    assert go is not None
    whole, stripped = programs
    opened = table(stripped)
    names = subprocess.run([go, "tool", "nm", whole], check=True, capture_output=True, text=True)
    checked = 0
    for line in names.stdout.splitlines():
        address, kind, name = line.split(None, 2)
        if kind == "T" and name.startswith(("main.", "fmt.", "runtime.gc")):
            found = opened.lookup(int(address, 16))
            assert found[-1].function == name
            checked += 1
    assert checked > 50
    asked = subprocess.run(
        [go, "tool", "objdump", "-s", "^main.outer$", whole],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    places = re.findall(r"^\s+(till\.go):(\d+)\s+0x([0-9a-f]+)", asked, re.M)
    assert len(places) > 5
    for file, number, address in places:
        innermost = opened.lookup(int(address, 16))[0]
        assert (Path(innermost.file).name, innermost.line) == (file, int(number))


def test_functions_that_were_inlined_are_told(
    programs: tuple[Path, Path], table: Callable[[Path], GoTable]
) -> None:
    go = shutil.which("go")
    assert go is not None
    version = subprocess.run([go, "env", "GOVERSION"], check=True, capture_output=True, text=True)
    if tuple(map(int, re.findall(r"\d+", version.stdout)[:2])) < (1, 26):
        pytest.skip("Go keeps the trees of inlined functions beside the table since 1.26")
    whole, stripped = programs
    asked = subprocess.run(
        [go, "tool", "objdump", "-s", "^main.outer$", whole],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    (address,) = re.findall(r"till\.go:7\s+0x([0-9a-f]+)", asked)[:1]
    lines = table(stripped).lookup(int(address, 16))
    assert [line.function for line in lines] == ["main.inner", "main.(*Till).Sum", "main.outer"]
    assert [line.line for line in lines] == [7, 12, 20]


def test_addresses_outside_the_text_have_nothing(
    programs: tuple[Path, Path], table: Callable[[Path], GoTable]
) -> None:
    opened = table(programs[1])
    assert opened.lookup(0) == []
    assert opened.lookup(1 << 40) == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "too short"),
        (bytes(72), "not a table of Go"),
        (struct.pack("<IHBB8Q", 0xFFFFFFFB, 0, 1, 8, *[0] * 8), "not a table of Go"),
        (struct.pack("<IHBB8Q", 0xFFFFFFF1, 0, 1, 4, *[0] * 8), "not a table of Go"),
        (struct.pack("<IHBB8Q", 0xFFFFFFF1, 0, 1, 8, 0, *[0] * 7), "beyond its end"),
        (struct.pack("<IHBB8Q", 0xFFFFFFF1, 0, 1, 8, 1 << 40, *[0] * 7), "beyond its end"),
        (struct.pack("<IHBB8Q", 0xFFFFFFF1, 0, 1, 8, 1, 0, 0, 1 << 60, 0, 0, 0, 0), "beyond"),
    ],
)
def test_hostile_headers_are_refused_in_words(data: bytes, words: str) -> None:
    with pytest.raises(GoTableError, match=words):
        GoTable(data, 0)
