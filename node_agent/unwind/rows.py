"""Unwind rows of a whole ELF file, as they travel from the child that makes them to the kernel.

Apart from what makes them (elf_rows.py): that is for the child only, not to stay in the sampler.
"""

from typing import NamedTuple

from node_agent.kernel.structs import MAX_ROW_SHARDS, ROW_CELL_BYTES, ROW_CELLS_PER_SHARD

ROW_BYTES = 8
MAX_ROWS = 1 << 21  # of one file: twice those of the largest seen
MAX_BLOCK_BYTES = MAX_ROW_SHARDS * ROW_CELLS_PER_SHARD * ROW_CELL_BYTES
MAX_SIGNALS = 16  # of a file


class CodeSegment(NamedTuple):
    """An executable segment: where it is in the file, at which address, and its size in bytes."""

    offset: int
    vaddr: int
    size: int


class Rows(NamedTuple):
    """Unwind rows of one ELF file.

    `rows`: 8 bytes each, see rules.py; packing.py makes the kernel's form of them. Pcs ascend
    strictly and are addresses less `base` (the lowest segment's page). A row holds up to the next
    one's pc.
    `frame_pointers`: where there is no row, the code keeps frame pointers (Go). `notes` counts what
    is unsupported or left out, by reason.
    """

    rows: bytes
    base: int
    segments: tuple[CodeSegment, ...]
    notes: dict[str, int]
    frame_pointers: bool = False


class PackedRows(NamedTuple):
    """Rows in the form that the kernel program searches: see packing.py.

    `rows` is a row_block of bpf/events.h, whole cells of it; `row_count`: how many rows it holds;
    `signals`: pcs of the code that signal handlers return to. All else is as in Rows.
    """

    rows: bytes
    row_count: int
    base: int
    segments: tuple[CodeSegment, ...]
    notes: dict[str, int]
    frame_pointers: bool = False
    signals: tuple[int, ...] = ()
