"""ELF files that lie about every size and offset: refused as such, quickly, or read."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from node_agent.symbols.build_ids import read_build_id
from node_agent.symbols.elf import HEADER, MAX_STRING_BYTES, SECTION, SEGMENT, string_at
from node_agent.symbols.errors import SymbolError
from node_agent.symbols.functions import read_functions
from node_agent.symbols.reduced_elf import reduce_elf

LIES = (0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
MAX_READ = 400 << 20  # what a lie may make us ask for, all reads together


def _lies(data: bytes) -> Iterator[bytes]:
    """Copies of `data` with one number of one header replaced."""
    header = HEADER.unpack_from(data)
    tables = [(HEADER, 0)]
    tables += [(SEGMENT, header[5] + n * SEGMENT.size) for n in range(header[10])]
    tables += [(SECTION, header[6] + n * SECTION.size) for n in range(header[12])]
    for layout, at in tables:
        fields = list(layout.unpack_from(data, at))
        for number, value in enumerate(fields):
            if not isinstance(value, int):
                continue
            for lie in LIES:
                try:
                    changed = layout.pack(*fields[:number], lie, *fields[number + 1 :])
                except struct.error:  # a smaller field
                    continue
                yield data[:at] + changed + data[at + layout.size :]


def test_no_lie_of_a_header_escapes_as_another_error(c_program: Path) -> None:
    data = c_program.read_bytes()
    outcomes = set()
    for number, hostile in enumerate(_lies(data)):
        asked = 0

        def read(offset: int, size: int, hostile: bytes = hostile) -> bytes:
            nonlocal asked
            part = hostile[offset : offset + size]
            asked += len(part)
            return part

        assert 1 <= len(read_build_id(read, len(hostile))) <= 64, number
        for use in (
            lambda read=read, hostile=hostile: read_functions(read, len(hostile)),
            lambda read=read, hostile=hostile: reduce_elf(read, len(hostile), 1 << 20),
        ):
            try:
                use()
            except SymbolError:
                outcomes.add("refused")
            else:
                outcomes.add("read")
        assert asked < MAX_READ
    assert outcomes == {"read", "refused"}


def test_a_thousand_notes_of_a_megabyte_are_not_read_in_the_sampler() -> None:
    count, size = 1000, 1 << 20
    header = HEADER.pack(
        b"\x7fELF\x02\x01\x01" + bytes(9), 3, 62, 1, 0, 64, 0, 0, 64, 56, count, 64, 0, 0
    )
    segments = SEGMENT.pack(4, 4, 1 << 17, 0, 0, size, size, 4) * count
    content = (header + segments).ljust(1 << 17, b"\0") + bytes(size)
    asked = 0

    def read(offset: int, length: int) -> bytes:
        nonlocal asked
        part = content[offset : offset + length]
        asked += len(part)
        return part

    read_build_id(read, len(content))

    assert asked < 256 << 10


def test_names_of_ten_megabytes_are_cut() -> None:
    table = b"\0" + b"x" * (10 << 20) + b"\0"
    assert string_at(table, 1) == "x" * MAX_STRING_BYTES
    assert string_at(table, 10 << 20) == "x"


@pytest.mark.parametrize("names", [True, False])
def test_thousands_of_sections_over_the_same_symbols(names: bool, monkeypatch) -> None:
    """They could make a reader go over the same megabytes for hours."""
    from node_agent.symbols import functions

    symbols = 40_000
    count = 1_000
    monkeypatch.setattr(functions, "MAX_TABLE_BYTES", 4 << 20)
    table_at, section_at = 64, 64 + symbols * 24
    header = HEADER.pack(
        b"\x7fELF\x02\x01\x01" + bytes(9), 3, 62, 1, 0, 0, section_at, 0, 64, 56, 0, 64, count, 0
    )
    symbol = struct.pack("<IBBHQQ", 0 if not names else 1, 2, 0, 1, 0x1000, 16)
    section = SECTION.pack(0, 2, 0, 0, table_at, symbols * 24, 0, 0, 8, 24)
    content = header + symbol * symbols + section * count
    read_bytes = 0

    def read(offset: int, length: int) -> bytes:
        nonlocal read_bytes
        part = content[offset : offset + length]
        read_bytes += len(part)
        return part

    read_functions(read, len(content))

    assert read_bytes < 8 << 20
