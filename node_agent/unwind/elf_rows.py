"""Makes the unwind rows of a whole ELF file: sorted, without repetitions, ready for the kernel."""

from array import array
from itertools import islice
from operator import le

from node_agent.symbols.elf import ReadAt
from node_agent.symbols.errors import ElfError
from node_agent.unwind.cfi import Functions, Reader
from node_agent.unwind.errors import NoRowsError
from node_agent.unwind.gaps import fill_gaps
from node_agent.unwind.image import open_image
from node_agent.unwind.rows import MAX_ROWS, CodeSegment, Rows
from node_agent.unwind.rules import END, GAP

# Functions are aligned to 16 bytes: what is shorter between two of them is padding.
_PADDING = 15
_PC = (1 << 32) - 1


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
    functions = Functions()
    if image.sections and not image.is_go:
        for section in image.sections:
            Reader(image.read, section, image.base, image.span, functions).run()
    elif image.sections and not image.sections[0].is_debug:  # C code beside Go's
        Reader(image.read, image.sections[0], image.base, image.span, functions).run()
    _end_at_entry(functions, image.entry - image.base)
    rows = merge(functions)
    if not image.is_go or rows:
        rows = fill_gaps(rows, image, functions.notes)
    if len(rows) > MAX_ROWS:
        raise NoRowsError(f"{len(rows)} rows; at most {MAX_ROWS} of one file can be used")
    if not rows and not image.is_go:
        raise NoRowsError("no unwind information, and too much code to follow its instructions")
    segments = tuple(CodeSegment(s.offset, s.vaddr, s.filesz) for s in image.code)
    return Rows(rows.tobytes(), image.base, segments, dict(functions.notes), image.is_go)


def _end_at_entry(functions: Functions, entry: int) -> None:
    """Nothing calls the program's first function, whether its description says so or not."""
    if 0 < entry <= _PC and entry in functions.starts:
        number = functions.starts.index(entry)
        for index in range(functions.firsts[number], functions.firsts[number + 1]):
            functions.rows[index] = functions.rows[index] & _PC | END


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
