"""Small programs, compiled once."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from node_agent.symbols.elf import ReadAt

C_SOURCE = """
static int helper(int x) __attribute__((noinline));
static int helper(int x) { volatile int y = x; return y + 1; }
int exported(int x) { return helper(x) * 2; }
int main(int argc, char **argv) { return exported(argc); }
"""
CPP_SOURCE = """
namespace shapes {
struct Area { int sum(int limit); };
__attribute__((noinline)) int Area::sum(int limit) { volatile int t = limit; return t; }
template <class T> __attribute__((noinline)) T twice(T value) {
    volatile T v = value;
    return v + v;
}
}
int main(int argc, char **) { return shapes::Area().sum(argc) + shapes::twice<long>(argc); }
"""
Compile = Callable[..., Path]


@pytest.fixture(scope="session")
def compile_program(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Compile a source text with flags to an executable."""
    folder = tmp_path_factory.mktemp("programs")

    def compile_(name: str, source: str, *flags: str) -> Path:
        path = folder / name
        if not path.exists():
            suffix, compiler = (".cpp", "g++") if "namespace" in source else (".c", "gcc")
            path.with_suffix(suffix).write_text(source)
            subprocess.run([compiler, *flags, "-o", path, path.with_suffix(suffix)], check=True)
        return path

    return compile_


@pytest.fixture(scope="session")
def c_program(compile_program: Compile) -> Path:
    return compile_program("c_program", C_SOURCE, "-O1")


@pytest.fixture(scope="session")
def cpp_program(compile_program: Compile) -> Path:
    return compile_program("cpp_program", CPP_SOURCE, "-O1")


@pytest.fixture(scope="session")
def libc() -> Path:
    """The C library that this interpreter runs on."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    return Path(next(line.split()[-1] for line in maps if "/libc.so" in line or "/libc-" in line))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[ReadAt, int]]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield (
            lambda offset, size: os.pread(descriptor, size, offset),
            os.fstat(descriptor).st_size,
        )
    finally:
        os.close(descriptor)


@pytest.fixture(scope="session")
def opened() -> Callable[[Path], object]:
    """A context manager: (read, size) of a file."""
    return _opened
