"""Damaged and hostile ELF files: rows that hold what they promise, or a refusal in words."""

import random
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from zlib import crc32

import pytest

from node_agent.symbols.elf import HEADER, SECTION, SEGMENT
from node_agent.unwind import cfi
from node_agent.unwind.elf_rows import build_rows
from node_agent.unwind.errors import NoRowsError
from node_agent.unwind.packing import pack_rows
from node_agent.unwind.row_file import decode_rows, encode_rows
from node_agent.unwind.rules import Rule

NUMBERS = (0, 1, 4, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, (1 << 64) - 1)
INSTRUCTIONS = b"\x00\x01\x02\x03\x04\x05\x07\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x16\x2e\x41\x86\xc6"
SHORT, LONG = 1_000, 150_000
MAX_READ_BYTES = 1 << 20  # of files of some KB, all reads together


def seeds(corpus: Path) -> list[Path]:
    found = sorted(corpus.glob("*.elf"))
    assert len(found) >= 7
    return found


def damage(seed: bytes, draw: random.Random) -> bytes:
    """A copy with one to six changes, most of them where unwind information lies."""
    data = bytearray(seed)
    # The linker puts it behind the code and before the symbols.
    first, last = (len(data) // 8, len(data) * 3 // 4) if draw.random() < 0.8 else (0, len(data))
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(first, last)
        kind = draw.randrange(7)
        if kind == 0:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[at] = draw.choice(INSTRUCTIONS)
        elif kind == 2:
            width = draw.choice((1, 2, 4, 8))
            number = draw.choice(NUMBERS) & ((1 << 8 * width) - 1)
            data[at : at + width] = number.to_bytes(width, "little")
        elif kind == 3:
            start = draw.randrange(len(data))
            piece = bytes(data[start : start + draw.randint(1, 48)])
            data[at : at + len(piece)] = piece
        elif kind == 4:
            piece = bytes(draw.choice(INSTRUCTIONS) for _ in range(draw.randint(1, 24)))
            data[at : at + len(piece)] = piece
        elif kind == 5:
            data[at : at + 4] = struct.pack("<I", draw.randrange(64))
        elif draw.random() < 0.1:
            del data[at:]
            return bytes(data)
    return bytes(data)


def check(data: bytes, is_image: bool = False) -> bool:
    """Build the rows of `data`; whether there are any. Fails when they break a promise."""
    asked = 0

    def read(offset: int, size: int) -> bytes:
        nonlocal asked
        assert offset >= 0 and size >= 0
        piece = data[offset : offset + size]
        asked += len(piece)
        return piece

    try:
        rows = build_rows(read, len(data), is_image)
    except NoRowsError as error:
        assert str(error)
        return False
    assert asked < MAX_READ_BYTES
    words = memoryview(rows.rows).cast("Q")
    pcs = [word & 0xFFFFFFFF for word in words]
    assert all(before < after for before, after in pairwise(pcs))
    assert set(rows.rows[7::8]) <= set(Rule)
    assert all(count >= 0 and reason for reason, count in rows.notes.items())
    try:
        packed = pack_rows(rows)
    except NoRowsError as error:
        assert str(error)
        return False
    assert packed.row_count <= len(pcs)
    assert decode_rows(b"id", encode_rows(b"id", packed)) == packed
    return True


def cases(corpus: Path, count: int) -> Iterator[tuple[str, bytes]]:
    files = [(path.name, path.read_bytes()) for path in seeds(corpus)]
    yield from files
    for number in range(count):
        name, content = files[number % len(files)]
        name = f"{name}#{number}"
        yield name, damage(content, random.Random(crc32(name.encode())))


def run(corpus: Path, count: int) -> None:
    outcomes = {check(path.read_bytes(), is_image=True) for path in seeds(corpus)}
    for number, (name, data) in enumerate(cases(corpus, count)):
        try:
            outcomes.add(check(data, is_image=number % 5 == 4))
        except Exception as error:
            raise AssertionError(f"{name}: {data.hex()}") from error
    assert outcomes == {True, False}


def test_damaged_files_are_refused_or_read(corpus: Path) -> None:
    run(corpus, SHORT)


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_many_damaged_files_are_refused_or_read(corpus: Path) -> None:
    run(corpus, LONG)


def elf_with(section: bytes, name: bytes = b".eh_frame", code_bytes: int = 1 << 20) -> bytes:
    """An ELF file with just this section, at address 0x400000, and code at 0x1000."""
    names = b"\0" + name + b"\0.shstrtab\0"
    at = HEADER.size + SEGMENT.size
    names_at = at + len(section)
    table_at = names_at + len(names)
    header = HEADER.pack(
        b"\x7fELF\x02\x01\x01" + bytes(9),
        2, 62, 1, 0, HEADER.size, table_at, 0, 64, 56, 1, 64, 3, 2,
    )  # fmt: skip
    segment = SEGMENT.pack(1, 5, 0x1000, 0x1000, 0, code_bytes, code_bytes, 4096)
    table = (
        bytes(SECTION.size)
        + SECTION.pack(1, 1, 2, 0x400000, at, len(section), 0, 0, 8, 0)
        + SECTION.pack(2 + len(name), 3, 0, 0, names_at, len(names), 0, 0, 1, 0)
    )
    return header + segment + section + names + table


CIE = struct.pack("<II", 20, 0) + b"\x01zR\0\x01\x78\x10\x01\x1b\x0c\x07\x08\x90\x01\0\0"


def fde(at: int, start: int, size: int, program: bytes, cie: int = 0) -> bytes:
    """An FDE at offset `at` of a section at 0x400000."""
    body = struct.pack("<Iii", at + 4 - cie, start - (0x400000 + at + 8), size) + b"\0" + program
    return struct.pack("<I", len(body)) + body


def build(data: bytes) -> "tuple[memoryview, dict[str, int]]":
    rows = build_rows(lambda at, size: data[at : at + size], len(data))
    return memoryview(rows.rows).cast("Q"), rows.notes


def section_of(*functions: tuple[int, int, bytes]) -> bytes:
    section = CIE
    for function in functions:
        section += fde(len(section), *function)
    return section


def test_functions_in_any_order_and_inside_each_other() -> None:
    section = section_of(
        (0x9000, 0x100, b"\x41\x0e\x10"),
        (0x2000, 0x100, b"\x41\x0e\x18\x42\x0e\x20"),
        (0x2001, 0x10, b"\x41\x0e\x28"),
        (0x2000, 0x100, b"\x41\x0e\x30"),  # described twice: the first one counts
        (0x5000, 0x10, b"\x50\x0e\x40"),  # a row behind its end
    )
    words, notes = build(elf_with(section))
    pcs = [(word & 0xFFFFFFFF) + 0x1000 for word in words]
    cfas = [word >> 32 & 0xFFFF if word >> 56 == 1 else -1 for word in words]
    found = list(zip(pcs, cfas, strict=True))
    assert (0x2000, 1) in found and (0x2002, 5) in found and (0x2001, 3) not in found
    assert (0x9001, 2) in found and (0x5000, 1) in found
    assert all(cfa != 8 for _, cfa in found)
    assert pcs == sorted(set(pcs))
    assert notes["functions inside others"] == 1


GOOD = section_of((0x3000, 16, b""))
AFTER_CIE = len(GOOD) + len(CIE)
BROKEN = {
    "64-bit entry": (struct.pack("<II", 0xFFFFFFFF, 0) + bytes(64), "an entry that can't be read"),
    "entry too long": (struct.pack("<II", 0x100000, 4) + bytes(64), "an entry that can't be read"),
    "entry too short": (struct.pack("<II", 2, 0) + bytes(64), "an entry that can't be read"),
    "far away": (fde(len(GOOD), 0x7FFFFF00, 16, b""), "outside the file's code"),
    "of negative size": (fde(len(GOOD), 0x2000, -1, b""), "outside the file's code"),
    "CIE in the middle": (fde(len(GOOD), 0x2000, 16, b"", cie=9), "a description that can't"),
    "CIE before all": (fde(len(GOOD), 0x2000, 16, b"", cie=-4096), "a description that can't"),
    "augmentation": (
        CIE.replace(b"zR", b"zQ") + fde(AFTER_CIE, 0x2000, 16, b"", cie=len(GOOD)),
        "an unknown augmentation",
    ),
    "return address": (
        CIE.replace(b"\x78\x10", b"\x78\x11") + fde(AFTER_CIE, 0x2000, 16, b"", cie=len(GOOD)),
        "another return address register",
    ),
    "version": (
        CIE[:8] + b"\x09" + CIE[9:] + fde(AFTER_CIE, 0x2000, 16, b"", cie=len(GOOD)),
        "an unknown version",
    ),
    "instructions": (fde(len(GOOD), 0x2000, 16, b"\x3f"), "instructions that can't be read"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_can_not_be_read_is_counted(name: str) -> None:
    broken, reason = BROKEN[name]
    words, notes = build(elf_with(GOOD + broken))
    assert 0x2000 | 1 << 32 | 1 << 56 in list(words)  # the good one, less the base
    assert [count for found, count in notes.items() if reason in found] == [1]


def test_a_section_of_zeros_ends_soon() -> None:
    words, _ = build(elf_with(section_of((0x2000, 16, b"")) + bytes(30 << 20)))
    assert len(words) > 0


def test_more_functions_rows_or_kinds_than_allowed_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = elf_with(section_of(*((0x2000 + 16 * n, 16, b"\x41\x0e\x10") for n in range(300))))
    kinds = CIE
    for _ in range(300):
        kinds += CIE + fde(len(kinds) + len(CIE), 0x2000, 16, b"", cie=len(kinds))
    build(many)
    build(elf_with(kinds))
    monkeypatch.setattr(cfi, "MAX_CIES", 200)
    with pytest.raises(NoRowsError, match="kinds of functions"):
        build(elf_with(kinds))
    for limit in ("MAX_FUNCTIONS", "MAX_ROWS"):
        with monkeypatch.context() as patch:
            patch.setattr(cfi, limit, 250)
            with pytest.raises(NoRowsError, match="too large"):
                build(many)


def test_one_long_program_of_many_functions_is_not_read_for_each() -> None:
    ladder = b"".join(b"\x41\x0e" + bytes((8 * (n % 15 + 1),)) for n in range(60_000))
    section = CIE
    while len(section) < 80 * len(ladder):
        section += fde(len(section), 0x2000, 0x10000, ladder)
    with pytest.raises(NoRowsError, match="too large"):
        build(elf_with(section))


def test_code_up_to_four_gibibytes_away_is_covered_and_more_is_refused() -> None:
    section = section_of((0x2000, 16, b""))
    words, _ = build(elf_with(section, code_bytes=(1 << 32) - 0x1000))
    assert len(words) > 0
    with pytest.raises(NoRowsError, match="4 GiB"):
        build(elf_with(section, code_bytes=1 << 33))
