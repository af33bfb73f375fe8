"""Programs whose unwind information is in `.debug_frame` only, plain or compressed."""

import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from node_agent.symbols.debug_sections import SHF_COMPRESSED
from node_agent.symbols.elf import SECTION, Section, read_header, read_sections
from node_agent.unwind.rules import Rule

RowsOf = Callable[[Path], Any]
SOURCE = """
extern int puts(const char *);
__attribute__((noinline)) int work(int x) {
    volatile char room[300];
    for (int i = 0; i < 300; i++) room[i] = x + i;
    return room[x & 63];
}
int main(int argc, char **argv) { puts(argv[0]); return work(argc); }
"""


def compile_(folder: Path, name: str, *flags: str) -> Path:
    (folder / "work.c").write_text(SOURCE)
    without = ["-fno-asynchronous-unwind-tables", "-fomit-frame-pointer"]
    command = ["gcc", "-O2", "-g", "-no-pie", *without, *flags, "-o", name, "work.c"]
    subprocess.run(command, check=True, cwd=folder)
    return folder / name


def debug_frame(content: bytes) -> tuple[int, Section]:
    """Where the header of `.debug_frame` lies, and what it says."""

    def read(offset: int, size: int) -> bytes:
        return content[offset : offset + size]

    header = read_header(read)
    sections = read_sections(read, header, len(content))
    ((number, section),) = [(n, s) for n, s in enumerate(sections) if s.name == ".debug_frame"]
    return header.section_offset + number * SECTION.size, section


def pack_by_zstd(program: Path, packed: Path) -> None:
    """`program`'s `.debug_frame`, compressed by zlib, compressed by zstd at the end of the file."""
    content = bytearray(program.read_bytes())
    whole = bytes(content)
    place, frame = debug_frame(whole)
    plain = zlib.decompress(whole[frame.offset + 24 : frame.offset + frame.size])
    again = zstandard.ZstdCompressor().compress(plain)
    fields = list(SECTION.unpack_from(content, place))
    fields[4], fields[5] = len(content), 24 + len(again)
    SECTION.pack_into(content, place, *fields)
    content += (2).to_bytes(4, "little") + whole[frame.offset + 4 : frame.offset + 24] + again
    packed.write_bytes(content)


@pytest.mark.parametrize("packer", ["zlib", "zstd"])
def test_compressed_information_has_the_same_rows(
    tmp_path: Path, rows_of: RowsOf, addresses: Any, packer: str
) -> None:
    plain = compile_(tmp_path, "plain", "-gz=none")
    packed = compile_(tmp_path, "packed", "-gz=zlib")
    if packer == "zstd":
        pack_by_zstd(packed, tmp_path / "zstd")
        packed = tmp_path / "zstd"
    _, frame = debug_frame(packed.read_bytes())
    assert frame.flags & SHF_COMPRESSED
    expected, found = rows_of(plain), rows_of(packed)
    work = addresses(plain)["work"]
    rules = [expected.at(work + at) for at in range(0, 40, 4)]
    assert (Rule.CFA_RSP, 8, 0) in rules
    assert any(rule[0] == Rule.CFA_RSP and rule[1] > 100 for rule in rules)
    assert found.rows.rows == expected.rows.rows
    assert rows_of(plain).rows.notes == found.rows.notes
