"""Real ELF files to read: compiled here, as a distribution would."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

_SOURCE = """
#include <cstdio>
namespace shop { template <class T> struct Cart {
  __attribute__((noinline)) T total(T n) { volatile T s = 0; for (T i = 0; i < n; i++) s += i;
    return s; }
}; }
extern "C" __attribute__((noinline)) int plain_c(int x) { return x * 3 + getchar(); }
int main() { shop::Cart<long> cart; return cart.total(1000) + plain_c(3); }
"""


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """compiled(*flags): an ELF file of a C++ program with plain_c and shop::Cart<long>::total."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("elf")
    (folder / "shop.cpp").write_text(_SOURCE)
    made: dict[tuple[str, ...], Path] = {}

    def build(*flags: str) -> Path:
        if flags not in made:
            made[flags] = folder / f"shop{len(made)}"
            argv = [compiler, "-O1", *flags, "-o", str(made[flags]), str(folder / "shop.cpp")]
            subprocess.run(argv, check=True)
        return made[flags]

    return build


@pytest.fixture(scope="session")
def file_offset() -> Callable[[Path, str], int]:
    """file_offset(elf, symbol): where binutils says that the symbol's code is in the file."""
    if shutil.which("objdump") is None:
        pytest.skip("no objdump")

    def find(elf: Path, symbol: str) -> int:
        argv = ["objdump", "-d", "-F", f"--disassemble={symbol}", str(elf)]
        listing = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        # 0000000000001139 <plain_c> (File Offset: 0x1139):
        (line,) = [each for each in listing.splitlines() if f"<{symbol}> (File Offset" in each]
        return int(line.partition("File Offset: ")[2].rstrip("):"), 16)

    return find
