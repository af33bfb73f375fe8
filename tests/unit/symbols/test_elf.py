"""ELF headers from hostile files: an answer or an ElfError, never anything else."""

import random
import struct
import subprocess
from contextlib import suppress

import pytest

from node_agent.symbols.elf import (
    HEADER,
    PT_LOAD,
    SECTION,
    parse_notes,
    read_header,
    read_sections,
    read_segments,
    string_at,
)
from node_agent.symbols.errors import ElfError, SymbolError
from node_agent.symbols.functions import read_functions
from node_agent.symbols.reduced_elf import reduce_elf


def _reader(data: bytes):
    return lambda offset, size: data[offset : offset + size]


def _read_all(data: bytes) -> None:
    read = _reader(data)
    header = read_header(read)
    read_segments(read, header)
    read_sections(read, header, len(data))


def test_headers_agree_with_readelf(c_program, opened) -> None:
    with opened(c_program) as (read, size):
        header = read_header(read)
        sections = read_sections(read, header, size)
        segments = read_segments(read, header)
    text = subprocess.run(
        ["readelf", "-SlW", c_program], capture_output=True, text=True, check=True
    ).stdout
    for section in sections[1:]:
        assert f"{section.name} " in text
        assert f"{section.addr:016x} {section.offset:06x} {section.size:06x}" in text
    for segment in segments:
        if segment.type == PT_LOAD:
            assert f"LOAD           0x{segment.offset:06x} 0x{segment.vaddr:016x}" in text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x7fELF",
        b"#!/bin/sh\n" * 100,
        b"MZ" + bytes(200),
        b"\x7fELF\x01\x01" + bytes(100),  # 32 bits
        b"\x7fELF\x02\x02" + bytes(100),  # big endian
    ],
)
def test_other_files_are_no_elf_files(data: bytes) -> None:
    with pytest.raises(ElfError):
        read_header(_reader(data))


def test_a_file_cut_anywhere_is_an_elf_error_or_readable(c_program) -> None:
    data = c_program.read_bytes()
    refused = 0
    for length in range(0, len(data), 97):
        try:
            _read_all(data[:length])
        except ElfError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("seed", range(8))
def test_damaged_headers_never_escape_as_another_error(c_program, seed: int) -> None:
    """Random bytes over the headers, program headers and section headers."""
    original = c_program.read_bytes()
    sections_at = HEADER.unpack_from(original)[6]
    places = [*range(16, 64), *range(64, 700), *range(sections_at, len(original))]
    source = random.Random(seed)
    for _ in range(250):
        data = bytearray(original)
        for _ in range(source.choice((1, 2, 8, 40))):
            data[source.choice(places)] = source.choice((0, 1, 0x7F, 0x80, 0xFF))
        read, size = _reader(bytes(data)), len(data)
        for attempt in (
            lambda read=read, size=size: reduce_elf(read, size, 1 << 20),
            lambda read=read, size=size: read_functions(read, size).name_at(0x1139),
        ):
            with suppress(SymbolError):
                attempt()


def test_section_counts_beyond_the_header_field_are_read_from_section_0() -> None:
    zero = SECTION.pack(0, 0, 0, 0, 0, 2, 1, 0, 0, 0)
    names = SECTION.pack(1, 3, 0, 0, 64 + 2 * SECTION.size, 9, 0, 0, 1, 0)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = HEADER.pack(ident, 2, 62, 1, 0, 0, 64, 0, 64, 0, 0, 64, 0, 0xFFFF)
    data = header + zero + names + b"\0.strtab\0"
    found = read_sections(_reader(data), read_header(_reader(data)), len(data))
    assert [section.name for section in found] == ["", ".strtab"]


def test_an_absurd_section_count_is_refused() -> None:
    zero = SECTION.pack(0, 0, 0, 0, 0, 1 << 40, 0, 0, 0, 0)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    data = HEADER.pack(ident, 2, 62, 1, 0, 0, 64, 0, 64, 0, 0, 64, 0, 0) + zero
    with pytest.raises(ElfError, match="sections; at most"):
        read_sections(_reader(data), read_header(_reader(data)), len(data))


def test_strings_end_at_nul_or_at_the_table() -> None:
    assert string_at(b"\0main\0half", 1) == "main"
    assert string_at(b"\0main\0half", 6) == "half"
    assert string_at(b"\0main\0half", 999) == ""


def test_notes_stop_at_the_first_that_does_not_fit() -> None:
    good = struct.pack("<III", 4, 3, 7) + b"GNU\0" + b"abc\0"
    assert [n.content for n in parse_notes(good)] == [b"abc"]
    assert [n.content for n in parse_notes(good + good[:-5])] == [b"abc"]
    huge = struct.pack("<III", 0xFFFFFFFF, 0xFFFFFFFF, 7)
    assert list(parse_notes(huge + good)) == []
