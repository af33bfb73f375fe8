"""Unwind rows of a whole ELF file, as they travel from the child that makes them to the kernel.

Apart from what makes them (elf_rows.py): that is for the child only, not to stay in the sampler.
"""

from typing import NamedTuple

ROW_BYTES = 8
MAX_ROWS = 1 << 21  # of one mapping: more than that the kernel side can't search


class CodeSegment(NamedTuple):
    """An executable segment: where it is in the file, at which address, and its size in bytes."""

    offset: int
    vaddr: int
    size: int


class Rows(NamedTuple):
    """Unwind rows of one ELF file.

    `rows`: 8 bytes each as in `struct unwind_row` of bpf/events.h, of strictly ascending pcs, which
    are addresses less `base` (the lowest segment's page). A row holds up to the next one's pc.
    `frame_pointers`: where there is no row, the code keeps frame pointers (Go). `notes` counts what
    is unsupported or left out, by reason.
    """

    rows: bytes
    base: int
    segments: tuple[CodeSegment, ...]
    notes: dict[str, int]
    frame_pointers: bool = False
