"""Rows of programs, compiled once."""

import os
import subprocess
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path

import pytest

from node_agent.unwind.elf_rows import build_rows
from node_agent.unwind.rows import Rows
from node_agent.unwind.rules import Rule

CORPUS = Path(__file__).parents[2] / "data" / "fuzz" / "eh_frame"
Compile = Callable[..., Path]


class Table:
    """Rows that can be looked up as the kernel side does: by address."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.words = memoryview(rows.rows).cast("Q")
        self.pcs = [word & 0xFFFFFFFF for word in self.words]

    def at(self, address: int) -> tuple[Rule, int, int] | None:
        """Rule, cfa and rbp (both times 8) at an address of the file; None before all rows."""
        index = bisect_right(self.pcs, address - self.rows.base) - 1
        if index < 0:
            return None
        raw = self.words[index].to_bytes(8, "little")
        cfa = int.from_bytes(raw[4:6], "little", signed=True)
        rbp = int.from_bytes(raw[6:7], "little", signed=True)
        return Rule(raw[7]), cfa * 8, rbp * 8


@pytest.fixture(scope="session")
def corpus() -> Path:
    """A folder of ELF files made of frames.s."""
    return CORPUS


@pytest.fixture(scope="session")
def rows_of() -> Callable[[Path], Table]:
    """The rows of a file."""

    def build(path: Path) -> Table:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            size = os.fstat(descriptor).st_size
            return Table(build_rows(lambda at, length: os.pread(descriptor, length, at), size))
        finally:
            os.close(descriptor)

    return build


@pytest.fixture(scope="session")
def addresses() -> Callable[[Path], dict[str, int]]:
    """The addresses of a file's symbols."""

    def read(path: Path) -> dict[str, int]:
        text = subprocess.run(["nm", path], check=True, capture_output=True, text=True).stdout
        lines = [line.split() for line in text.splitlines()]
        return {fields[2]: int(fields[0], 16) for fields in lines if len(fields) == 3}

    return read


@pytest.fixture(scope="session")
def compile_c(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Compile C source text with flags, by gcc or another compiler."""
    folder = tmp_path_factory.mktemp("programs")

    def compile_(name: str, source: str, *flags: str, compiler: str = "gcc") -> Path:
        path = folder / name
        path.with_suffix(".c").write_text(source)
        subprocess.run([compiler, *flags, "-o", path, path.with_suffix(".c")], check=True)
        return path

    return compile_


@pytest.fixture(scope="session")
def libc() -> Path:
    """The C library that this interpreter runs on."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    return Path(next(line.split()[-1] for line in maps if "/libc.so" in line or "/libc-" in line))
