"""Unwind rows of a whole ELF file: sorted, without repetitions, ready for the kernel side."""

from array import array
from itertools import islice
from operator import le
from typing import NamedTuple

from node_agent.symbols.elf import ReadAt
from node_agent.symbols.errors import ElfError
from node_agent.unwind.cfi import Functions, Reader
from node_agent.unwind.errors import NoRowsError
from node_agent.unwind.image import open_image
from node_agent.unwind.rules import GAP

ROW_BYTES = 8
MAX_ROWS = 1 << 21  # of one mapping: more than that the kernel side can't search
# Functions are aligned to 16 bytes: what is shorter between two of them is padding.
_PADDING = 15
_PC = (1 << 32) - 1


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


def build_rows(read: ReadAt, file_size: int, is_image: bool = False) -> Rows:
    """Rows of the ELF file of `file_size` bytes behind `read`.

    `is_image`: `read` has the file as a process has mapped it, the lowest segment's page at offset
    0; section headers are not looked at. Raises NoRowsError (no unwind information; not an x86-64
    ELF file; beyond a limit), and what `read` raises.
    """
    try:
        image = open_image(read, file_size, is_image)
    except ElfError as error:
        raise NoRowsError(str(error)) from error
    if not image.sections:
        raise NoRowsError("no unwind information: neither .eh_frame nor .debug_frame")
    functions = Reader(image.read, image.sections[0], image.base, image.span).run()
    rows = merge(functions)
    if len(rows) > MAX_ROWS:
        raise NoRowsError(f"{len(rows)} rows; at most {MAX_ROWS} of one file can be used")
    if not rows:
        raise NoRowsError("no unwind information: .eh_frame describes no function of the file")
    segments = tuple(CodeSegment(s.offset, s.vaddr, s.filesz) for s in image.code)
    return Rows(rows.tobytes(), image.base, segments, dict(functions.notes))


def merge(functions: Functions) -> "array[int]":
    """All rows sorted by pc, with GAP rows between functions; repeated rules are left out."""
    starts, sizes, firsts, rows = (
        functions.starts,
        functions.sizes,
        functions.firsts,
        functions.rows,
    )
    out = array("Q")
    if not starts:
        return out
    order: range | list[int] = range(len(starts))
    if not all(map(le, starts, islice(starts, 1, None))):
        order = sorted(order, key=starts.__getitem__)
    end, last, previous = 0, GAP, -1
    for number in order:
        start = starts[number]
        if start < end:
            if start == previous:
                continue  # folded functions are described more than once
            functions.notes["functions inside others"] += 1
            while out and out[-1] & _PC >= start:
                out.pop()
            last = out[-1] & ~_PC if out else GAP
        elif start > end + _PADDING and last != GAP:
            out.append(end | GAP)
            last = GAP
        first, following = firsts[number], firsts[number + 1]
        if rows[first] & ~_PC == last:
            first += 1
        if first < following:
            out.extend(rows[first:following])
            last = out[-1] & ~_PC
        previous, end = start, start + sizes[number]
    if last != GAP and end <= _PC:
        out.append(end | GAP)
    return out
