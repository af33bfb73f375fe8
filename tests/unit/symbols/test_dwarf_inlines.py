"""Functions that a compiler inlined, as binutils tells them."""

import random
import shutil
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from node_agent.symbols.debug_sections import SHF_COMPRESSED, read_content
from node_agent.symbols.dwarf_entries import DebugSections
from node_agent.symbols.dwarf_inlines import find_inlined
from node_agent.symbols.elf import SECTION, ReadAt, read_header, read_sections
from node_agent.symbols.functions import read_functions

Compile = Callable[..., Path]
SOURCE = """
static inline __attribute__((always_inline)) int inner(int x) { volatile int y = x; return y + 1; }
static inline __attribute__((always_inline)) int middle(int x) {
  int sum = inner(x);
  if (sum > 3)
    sum += inner(x + 1);
  return sum;
}
__attribute__((noinline)) int outer(int x) {
  int sum = 0;
  for (int i = 0; i < x; i++)
    sum += middle(i);
  return sum;
}
int main(int argc, char **argv) { return outer(argc) + inner(argc); }
"""
CPP_SOURCE = """
namespace shapes {
template <class T> struct Area {
  T sum = 0;
  inline __attribute__((always_inline)) void add(T value) { volatile T v = value; sum += v; }
};
__attribute__((noinline)) long outer(int x) {
  Area<long> area;
  auto twice = [&](long v) __attribute__((always_inline)) { area.add(v); area.add(v); };
  for (int i = 0; i < x; i++)
    twice(i);
  return area.sum;
}
}
int main(int argc, char **) { return shapes::outer(argc); }
"""
Told = list[tuple[str, str, int]]


def code_of(program: Path, *functions: str) -> list[int]:
    """Addresses of every byte of the functions."""
    listed = subprocess.run(["nm", "-S", program], check=True, capture_output=True, text=True)
    rows = [line.split() for line in listed.stdout.splitlines()]
    found = [row for row in rows if row[-1] in functions]
    assert len(found) == len(functions)
    return [
        address
        for row in found
        for address in range(int(row[0], 16), int(row[0], 16) + int(row[1], 16))
    ]


def told_by_addr2line(program: Path, addresses: list[int], tool: str = "addr2line") -> list[Told]:
    """Function, file and line of each frame there, the innermost first."""
    shown = subprocess.run(
        [tool, "-a", "-i", "-f", "-e", program, *map(hex, addresses)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    found: list[Told] = []
    at = 0
    while at < len(shown):
        if shown[at].startswith("0x"):
            found.append([])
            at += 1
            continue
        file, _, number = shown[at + 1].partition(" (")[0].rpartition(":")
        found[-1].append((shown[at], Path(file).name, int(number) if number.isdecimal() else 0))
        at += 2
    return found


def reader(content: bytes) -> ReadAt:
    return lambda offset, size: content[offset : offset + size]


def told_by_us(program: Path, opened, addresses: list[int]) -> list[Told]:
    # -no-pie: the first segment begins at 0x400000, and file offsets count from there
    with opened(program) as (read, size):
        found = read_functions(read, size).lines_at([address - 0x400000 for address in addresses])
    return [[(line.function, Path(line.file).name, line.line) for line in at] for at in found]


@pytest.mark.parametrize(
    "flags",
    [("-gdwarf-2",), ("-gdwarf-3",), ("-gdwarf-4",), ("-gdwarf-5",), ("-g", "-gz=zlib")],
    ids=" ".join,
)
def test_inlined_functions_agree_with_binutils(compile_program: Compile, opened, flags) -> None:
    program = compile_program("inlines" + "".join(flags), SOURCE, "-O2", "-no-pie", *flags)
    addresses = code_of(program, "outer", "main")
    ours, theirs = told_by_us(program, opened, addresses), told_by_addr2line(program, addresses)
    assert ours == theirs
    chains = {tuple(name for name, _, _ in at) for at in ours}
    assert {("inner", "middle", "outer"), ("inner", "main")} <= chains


@pytest.mark.parametrize("version", [4, 5])
def test_inlined_functions_of_clang(tmp_path: Path, opened, version: int) -> None:
    clang, tool = shutil.which("clang"), shutil.which("llvm-addr2line")
    if clang is None or tool is None:
        pytest.skip("no clang, or no llvm-addr2line: binutils do not read its lists of ranges")
    source, program = tmp_path / "inlines.c", tmp_path / "inlines"
    source.write_text(SOURCE)
    command = [clang, "-O2", "-no-pie", f"-gdwarf-{version}", "-o", program, source]
    subprocess.run(command, check=True)
    addresses = code_of(program, "outer", "main")
    ours, theirs = (
        told_by_us(program, opened, addresses),
        told_by_addr2line(program, addresses, tool),
    )
    assert ours == theirs
    assert ("inner", "middle", "outer") in {tuple(name for name, _, _ in at) for at in ours}


def test_inlined_functions_of_cpp_have_the_names_of_the_linker(
    compile_program: Compile, opened
) -> None:
    program = compile_program("cpp_inlines", CPP_SOURCE, "-O2", "-g", "-no-pie")
    addresses = code_of(program, "_ZN6shapes5outerEi")
    ours, theirs = told_by_us(program, opened, addresses), told_by_addr2line(program, addresses)
    assert [at[-1] for at in ours] == [at[-1] for at in theirs]
    assert [len(at) for at in ours] == [len(at) for at in theirs]
    names = {at[0][0] for at in ours if len(at) == 3}
    assert names == {"_ZN6shapes4AreaIlE3addEl"}


def test_sections_that_zstd_compressed_say_the_same(
    compile_program: Compile, opened, tmp_path: Path
) -> None:
    program = compile_program("inlines-g-gz=zlib", SOURCE, "-O2", "-no-pie", "-g", "-gz=zlib")
    packed = tmp_path / "packed"
    assert repack(program, packed) >= 3
    addresses = code_of(program, "outer", "main")
    assert told_by_us(packed, opened, addresses) == told_by_us(program, opened, addresses)


def repack(program: Path, packed: Path) -> int:
    """Write `program` to `packed` with zstd in place of zlib; how many sections that were. Not all
    of Debian's binutils can."""
    content = bytearray(program.read_bytes())
    read = reader(bytes(content))
    header = read_header(read)
    count = 0
    for number, section in enumerate(read_sections(read, header, len(content))):
        if not section.flags & SHF_COMPRESSED:
            continue
        plain = zlib.decompress(read(section.offset + 24, section.size - 24))
        again = zstandard.ZstdCompressor(level=19).compress(plain)
        # At the end of the file: it may be larger than what it takes the place of.
        fields = list(SECTION.unpack_from(content, header.section_offset + number * SECTION.size))
        fields[4], fields[5] = len(content), 24 + len(again)
        content += (2).to_bytes(4, "little") + read(section.offset + 4, 20) + again
        SECTION.pack_into(content, header.section_offset + number * SECTION.size, *fields)
        count += 1
    packed.write_bytes(content)
    return count


def test_what_unpacks_to_too_much_is_cut(compile_program: Compile, tmp_path: Path) -> None:
    program = compile_program("inlines-g-gz=zlib", SOURCE, "-O2", "-no-pie", "-g", "-gz=zlib")
    packed = tmp_path / "packed"
    repack(program, packed)
    for path in (program, packed):
        content = path.read_bytes()
        read = reader(content)
        sections = read_sections(read, read_header(read), len(content))
        (info,) = (section for section in sections if section.name == ".debug_info")
        whole = read_content(read, info)
        assert len(whole) > info.size
        assert read_content(read, info, info.size) == whole[: info.size]
        assert read_content(read, info, info.size - 1) == b""
        damaged = content[: info.offset + 24] + bytes(50) + content[info.offset + 74 :]
        assert read_content(reader(damaged), info) == b""


def test_damaged_entries_say_less_and_nothing_else(compile_program: Compile) -> None:
    program = compile_program("inlines-gdwarf-5", SOURCE, "-O2", "-no-pie", "-gdwarf-5")
    content = program.read_bytes()
    read = reader(content)
    names = ("info", "abbrev", "str", "line_str", "str_offsets", "addr", "ranges", "rnglists")
    sections = read_sections(read, read_header(read), len(content))
    found = {section.name: read_content(read, section) for section in sections}
    whole = DebugSections(*(found.get(f".debug_{name}", b"") for name in names))
    addresses = code_of(program, "outer", "main")
    sound = find_inlined(whole, addresses)
    assert sound
    chance = random.Random(6)
    changed = 0
    for _ in range(400):
        parts = [bytearray(part) for part in whole]
        part = chance.choice([part for part in parts if part])
        for _ in range(chance.randrange(1, 6)):
            part[chance.randrange(len(part))] = chance.randrange(256)
        if chance.random() < 0.3:
            del part[chance.randrange(len(part)) :]
        changed += find_inlined(DebugSections(*map(bytes, parts)), addresses) != sound
    assert changed > 20
    assert find_inlined(whole, addresses, max_entries=1) == {}
