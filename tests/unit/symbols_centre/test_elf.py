"""Program headers: real ones, and bytes that only claim to be some."""

import struct

import pytest

from aggregator.symbols.elf import Segment, load_segments, relative_address
from aggregator.symbols.errors import RefusedExtractError


def elf(*program_headers: tuple[int, int, int, int], count: int | None = None) -> bytes:
    """A 64-bit ELF file of only headers; each is (type, offset, address, size)."""
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        *(ident, 3, 62, 1, 0, 64, 0, 0, 64, 56),
        *(len(program_headers) if count is None else count, 64, 0, 0),
    )
    return header + b"".join(
        struct.pack("<IIQQQQQQ", kind, 5, offset, address, address, size, size, 4096)
        for kind, offset, address, size in program_headers
    )


def test_only_loaded_segments_count() -> None:
    data = elf((6, 64, 64, 100), (1, 0, 0x400000, 0x650), (1, 0x1000, 0x402000, 0x200))
    assert load_segments(data) == [Segment(0, 0x400000, 0x650), Segment(0x1000, 0x402000, 0x200)]


@pytest.mark.parametrize(
    ("offset", "address"),
    [(0, 0), (0x64F, 0x64F), (0x650, None), (0x1000, 0x2000), (0x11FF, 0x21FF), (0x1200, None)],
)
def test_addresses_count_from_the_first_segment(offset: int, address: int | None) -> None:
    segments = [Segment(0, 0x400000, 0x650), Segment(0x1000, 0x402000, 0x200)]
    assert relative_address(segments, offset) == address


def test_a_segment_below_the_first_gives_no_address() -> None:
    assert relative_address([Segment(0, 4096, 1), Segment(8, 0, 8)], 9) is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not an ELF"),
        (b"\x7fELF", "not an ELF"),
        (b"MZ" + bytes(100), "not an ELF"),
        (b"\x7fELF\x01\x01" + bytes(100), "64-bit"),
        (b"\x7fELF\x02\x02" + bytes(100), "64-bit"),
        (elf(), "0 program headers"),
        (elf(count=65_535), "65535 program headers"),
        (elf((1, 0, 0, 1), count=2), "beyond the end"),
        (elf((6, 0, 0, 1)), "no segment"),
    ],
)
def test_hostile_headers_are_refused_in_words(data: bytes, words: str) -> None:
    with pytest.raises(RefusedExtractError, match=words):
        load_segments(data)
