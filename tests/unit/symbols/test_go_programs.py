"""Go programs that are stripped of every symbol: names, lines and inlined functions all the same,
in a recording and, from what a node sends, at the centre."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from aggregator.symbols import native
from node_agent.symbols.build_ids import read_build_id
from node_agent.symbols.elf import ReadAt
from node_agent.symbols.functions import read_functions
from node_agent.symbols.reduced_elf import reduce_elf

_SOURCE = """package main

func inner(x int) int { return x*3 + 1 }

//go:noinline
func outer(x int) int {
	s := 0
	for i := 0; i < x; i++ {
		s += inner(i)
	}
	return s
}

func main() { println(outer(1000)) }
"""


@pytest.fixture(scope="module")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, int]]:
    """go_program(*flags): a stripped program, and the file offset of line 9 in main.outer."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("no go")
    folder = tmp_path_factory.mktemp("go")
    (folder / "till.go").write_text(_SOURCE)

    def build(*flags: str) -> tuple[Path, int]:
        name = f"till{'-'.join(flags)}"
        base = [go, "build", *flags]
        subprocess.run([*base, "-o", f"{name}-whole", "till.go"], check=True, cwd=folder)
        command = [*base, "-ldflags=-s -w", "-o", name, "till.go"]
        subprocess.run(command, check=True, cwd=folder)
        listing = subprocess.run(
            [go, "tool", "objdump", "-s", "^main.outer$", folder / f"{name}-whole"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        address = int(re.findall(r"till\.go:3\s+0x([0-9a-f]+)", listing)[0], 16)
        headers = subprocess.run(
            ["readelf", "-lW", folder / name], check=True, capture_output=True, text=True
        ).stdout
        for found in re.findall(r"LOAD\s+0x(\w+) 0x(\w+) 0x\w+ 0x(\w+)", headers):
            at, start, size = (int(number, 16) for number in found)
            if start <= address < start + size:
                return folder / name, at + address - start
        raise AssertionError(headers)

    return build


def reader(path: Path) -> tuple[ReadAt, int]:
    content = path.read_bytes()
    return lambda offset, size: content[offset : offset + size], len(content)


@pytest.mark.parametrize("flags", [(), ("-buildmode=pie",)], ids=["plain", "pie"])
def test_a_recording_and_the_centre_say_the_same(
    go_program: Callable[..., tuple[Path, int]], flags: tuple[str, ...]
) -> None:
    path, offset = go_program(*flags)
    read, size = reader(path)
    (local,) = read_functions(read, size).lines_at([offset])
    extract = reduce_elf(read, size, 1 << 30)
    assert len(extract) < size
    (central,) = native.lookup(native.build_symbols(extract, read_build_id(read, size)), [offset])
    assert local == central
    assert [line.function for line in local][-1] == "main.outer"
    assert [Path(line.file).name for line in local] == ["till.go"] * len(local)
    if flags == () and _go_version() >= (1, 26):  # PIE: the trees' place is known only when loaded
        assert [(line.function, line.line) for line in local] == [
            ("main.inner", 3),
            ("main.outer", 9),
        ]


def test_before_go_1_26_inlined_functions_are_those_of_the_debug_information(
    go_program: Callable[..., tuple[Path, int]], tmp_path: Path
) -> None:
    stripped, offset = go_program()
    whole, older = stripped.with_name(f"{stripped.name}-whole"), tmp_path / "older"
    # what Go 1.26 added, and with it the way to the trees of inlined functions
    command = ["objcopy", "--rename-section", ".go.module=.other", whole, older]
    subprocess.run(command, check=True)
    (expected,) = read_functions(*reader(whole)).lines_at([offset])
    (found,) = read_functions(*reader(older)).lines_at([offset])
    assert [(line.function, line.line) for line in found] == [("main.inner", 3), ("main.outer", 9)]
    if _go_version() >= (1, 26):
        assert [line.function for line in found] == [line.function for line in expected]
    assert [Path(line.file).name for line in found] == ["till.go"] * 2


def test_a_program_of_go_and_c_has_the_names_of_both(
    go_program: Callable[..., tuple[Path, int]], tmp_path: Path
) -> None:
    go = shutil.which("go")
    assert go is not None
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    (tmp_path / "mixed.go").write_text(
        "package main\n/*\n__attribute__((noinline)) static int c_part(int n)"
        " { volatile int s = 0; while (n--) s += n; return s; }\n*/\n"
        'import "C"\n\n//go:noinline\nfunc outer(n int) int { return int(C.c_part(C.int(n))) }\n\n'
        "func main() { println(outer(10)) }\n"
    )
    environment = os.environ | {"CGO_ENABLED": "1"}
    command = [go, "build", "-o", "mixed", "mixed.go"]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment)
    listed = subprocess.run(
        ["nm", tmp_path / "mixed"], check=True, capture_output=True, text=True
    ).stdout
    read, size = reader(tmp_path / "mixed")
    functions = read_functions(read, size)
    stored = native.build_symbols(reduce_elf(read, size, 1 << 30), read_build_id(read, size))
    headers = subprocess.run(
        ["readelf", "-lW", tmp_path / "mixed"], check=True, capture_output=True, text=True
    ).stdout
    ((at, start),) = re.findall(r"LOAD\s+0x(\w+) 0x(\w+) 0x\w+ 0x\w+ 0x\w+ R E", headers)
    for symbol in ("main.outer", "c_part", "main.main", "runtime.mallocgc"):
        address = next(
            int(line.split()[0], 16) for line in listed.splitlines() if line.endswith(" " + symbol)
        )
        offset = address - int(start, 16) + int(at, 16)
        (central,) = native.lookup(stored, [offset])
        (local,) = functions.lines_at([offset])
        # the recording finds the lines of the C part, too: in the program's debug information
        assert [line.function for line in central] == [line.function for line in local]
        assert local[-1].function == symbol
        assert Path(local[-1].file).suffix == ".go"


def _go_version() -> tuple[int, ...]:
    shown = subprocess.run(["go", "env", "GOVERSION"], check=True, capture_output=True, text=True)
    return tuple(map(int, re.findall(r"\d+", shown.stdout)[:2]))
