"""From mappings to the lists that the kernel program searches."""

import pytest

from node_agent.kernel.structs import UNWIND_MAPPING
from node_agent.processes.mappings import Mapping
from node_agent.unwind.arena import Extent
from node_agent.unwind.spaces import (
    SQUEEZED_BYTES,
    Kind,
    Part,
    Place,
    Segment,
    expand,
    fit,
    pack_parts,
    plan_parts,
    signal_addresses,
    squeeze,
)

PAGE = 4096
JIT = Kind.FRAME_POINTER
MODULES = {b"/bin/a": 11, b"/lib/b": 22}


def mapped(start: int, pages: int, offset: int = 0, path: bytes = b"/bin/a") -> Mapping:
    return Mapping(start, start + pages * PAGE, offset, 8, 1, 5 if path else 0, path)


def identify(mapping: Mapping) -> int | Kind:
    return MODULES.get(mapping.path, JIT)


@pytest.mark.parametrize(
    ("mappings", "expected"),
    [
        ([], []),
        (
            [
                mapped(0x10000, 2, PAGE),
                mapped(0x20000, 1, 0, b"/lib/b"),
                mapped(0x30000, 1, 0, b""),
            ],
            [
                Part(0x10000, 0x12000, PAGE, 11),
                Part(0x20000, 0x21000, 0, 22),
                Part(0x30000, 0x31000, 0, None, JIT),
            ],
        ),
        # one file mapped in pieces that continue each other (mprotect splits mappings)
        (
            [mapped(0x10000, 2, PAGE), mapped(0x12000, 1, 3 * PAGE)],
            [Part(0x10000, 0x13000, PAGE, 11)],
        ),
        # the same file again at another distance
        (
            [mapped(0x10000, 2, PAGE), mapped(0x12000, 1, PAGE)],
            [Part(0x10000, 0x12000, PAGE, 11), Part(0x12000, 0x13000, PAGE, 11)],
        ),
        # a hole between them
        (
            [mapped(0x10000, 1, 0), mapped(0x12000, 1, 2 * PAGE)],
            [Part(0x10000, 0x11000, 0, 11), Part(0x12000, 0x13000, 2 * PAGE, 11)],
        ),
        # regions of a JIT that touch
        (
            [mapped(0x10000, 1, 0, b""), mapped(0x11000, 1, 0, b""), mapped(0x13000, 1, 0, b"")],
            [Part(0x10000, 0x12000, 0, None, JIT), Part(0x13000, 0x14000, 0, None, JIT)],
        ),
        # the kernel's own page
        ([mapped(0xFFFFFFFFFF600000, 1, 0, b"[vsyscall]")], []),
    ],
)
def test_mappings_become_parts(mappings: list[Mapping], expected: list[Part]) -> None:
    assert list(plan_parts(mappings, identify)) == expected


def packed(parts: list[Part], places: dict[int, Place | Kind]) -> list[tuple[int, ...]]:
    return list(UNWIND_MAPPING.iter_unpack(pack_parts(parts, places.__getitem__)))


@pytest.mark.parametrize(
    ("part", "segment", "base", "address", "pc"),
    [
        # position independent: mapped anywhere
        (Part(0x7F0000001000, 0x7F0000003000, 0x1000, 1), (0x1000, 0x1000, 0x1F00), 0,
         0x7F0000001234, 0x1234),
        # linked to an address: pc counts from the lowest segment
        (Part(0x401000, 0x403000, 0x1000, 1), (0x1000, 0x401000, 0x1F00), 0x400000,
         0x401234, 0x1234),
        # lld: addresses run ahead of offsets
        (Part(0x7F0000002000, 0x7F0000004000, 0x1000, 1), (0x1650, 0x2650, 0x1F00), 0,
         0x7F0000002700, 0x2700),
        # a part of the segment only
        (Part(0x7F0000005000, 0x7F0000006000, 0x3000, 1), (0x1000, 0x1000, 0x8000), 0,
         0x7F0000005010, 0x3010),
        # prelinked above the place where it is mapped: the distance is negative
        (Part(0x1000, 0x3000, 0x0, 1), (0x0, 0x3000000000, 0x1F00), 0x3000000000, 0x1800, 0x800),
    ],
)  # fmt: skip
def test_an_address_less_the_bias_is_the_pc(
    part: Part, segment: tuple[int, int, int], base: int, address: int, pc: int
) -> None:
    place = Place(Extent(500, 40), base, (Segment(*segment),))
    ((start, end, bias, first, count),) = packed([part], {1: place})
    assert (start, end, first, count) == (part.start, part.end, 500, 40)
    assert (address - bias) % (1 << 64) == pc


def test_the_segment_that_covers_most_of_a_mapping_counts() -> None:
    segments = (Segment(0x0, 0x0, 0x1100), Segment(0x1100, 0x2100, 0x4000))
    place = Place(Extent(0, 9), 0, segments)
    ((_, _, bias, _, _),) = packed([Part(0x50000, 0x55000, 0x1000, 1)], {1: place})
    assert 0x50100 - bias == 0x2100


def test_what_has_no_rows_says_why() -> None:
    parts = [
        Part(0x1000, 0x2000, 0, None, Kind.FRAME_POINTER),
        *(Part(n * 0x1000, (n + 1) * 0x1000, 0, n) for n in range(2, 6)),
    ]
    nowhere = Place(Extent(0, 9), 0, (Segment(0x900000, 0, 0x1000),))
    places: dict[int, Place | Kind] = {
        2: Kind.NO_ROWS,
        3: Kind.NO_ROOM,
        4: Kind.PENDING,
        5: nowhere,
    }
    kinds = [Kind(row[3]) for row in packed(parts, places) if row[4] == 0]
    assert kinds == [
        *(Kind.FRAME_POINTER, Kind.NO_ROWS, Kind.NO_ROOM, Kind.PENDING),
        Kind.NO_ROWS,
    ]


def test_files_and_large_parts_come_first_when_there_are_too_many() -> None:
    files = [Part(n * 0x10000, n * 0x10000 + 0x1000, 0, n) for n in range(1, 4)]
    jit = [Part(n << 20, (n << 20) + n * 0x1000, 0, None, JIT) for n in range(1, 9)]
    parts = tuple(sorted([*files, *jit]))
    assert fit(parts, 11) is parts
    kept = fit(parts, 5)
    assert list(kept) == sorted([*files, jit[7], jit[6]])


def test_the_code_that_handlers_return_to_is_found_in_the_process() -> None:
    place = Place(Extent(0, 9), 0x400000, (Segment(0x1000, 0x401000, 0x1000),), (0x1050,))
    parts = [Part(0x401000, 0x402000, 0x1000, 1), Part(0x5000, 0x6000, 0, None, JIT)]
    assert signal_addresses(parts, {1: place}.__getitem__) == {0x401050, 0x401051}


def test_parts_are_the_same_when_they_were_squeezed() -> None:
    parts = (
        Part(0x1000, 0x3000, 0x2000, (1 << 64) - 1),
        Part(0x3000, 0x4000, 0, None, Kind.FRAME_POINTER),
        Part((1 << 63) - 4096, 1 << 63, (1 << 63) + 4096, 7),
        *(Part(0x5000, 0x6000, 0, None, kind) for kind in Kind),
    )
    assert expand(squeeze(parts)) == parts
    assert len(squeeze(parts)) == len(parts) * SQUEEZED_BYTES
    assert squeeze(()) == b""
