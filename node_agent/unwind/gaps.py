"""Code that unwind information leaves out: entry points, linkage tables, assembly, all of musl. Its
rows come from what is known about such code, or from following its instructions."""

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from node_agent.symbols.elf import SHT_DYNSYM, SHT_SYMTAB, STT_FUNC, STT_GNU_IFUNC
from node_agent.unwind.image import Image
from node_agent.unwind.rules import END, GAP, SCRATCH, Rule, word
from node_agent.unwind.stack_heights import follow

MAX_FOLLOWED_BYTES = 640 << 10  # of all gaps of a file; musl has 400 KiB, which take 0.7 s
MIN_GAP_BYTES = 16
MAX_SYMBOL_BYTES = 48 << 20
_PIECE_BYTES = 24 << 12
_PC = (1 << 32) - 1
_SHF_EXECINSTR = 4
_ENTRY_BYTES = 64  # `_start` has about 40
_RETURN_ON_TOP = word(Rule.CFA_RSP, 1)


class Gap(NamedTuple):
    """Code from `start` to `end` (less the base) that no row covers."""

    start: int
    end: int


def fill_gaps(rows: "array[int]", image: Image, notes: "Counter[str]") -> "array[int]":
    """`rows` with rows for the code between them, counted in `notes`."""
    gaps = list(find_gaps(rows, image))
    filled: dict[Gap, list[int]] = {}
    tables = {gap: made for gap in gaps if (made := _linkage_rows(gap, image))}
    rest = [gap for gap in gaps if gap not in tables]
    size = sum(gap.end - gap.start for gap in rest)
    if image.is_go or not image.has_code or size > MAX_FOLLOWED_BYTES:
        entry = image.entry - image.base
        for gap in rest:
            if gap.start <= entry < gap.end:
                end = min(entry + _ENTRY_BYTES, gap.end)
                before = [gap.start | GAP] if gap.start < entry else []
                filled[gap] = [*before, entry | END, end | GAP]
        notes["bytes of code without unwind information"] += size
    elif size:
        starts = sorted(_function_starts(image))
        for gap in rest:
            code = image.read_code(gap.start, gap.end - gap.start)
            inside = starts[bisect_left(starts, gap.start) : bisect_left(starts, gap.end)]
            filled[gap] = follow(code, gap.start, inside, image.entry - image.base)
        notes["bytes of code followed for want of unwind information"] += size
    if not image.is_go and image.has_code:
        filled |= _scratch_rows(rows, image, MAX_FOLLOWED_BYTES - size)
    return _spliced(rows, filled | tables)


def find_gaps(rows: "array[int]", image: Image) -> Iterator[Gap]:
    """Where `rows` say nothing about code, in the order of addresses."""
    first = rows[0] & _PC if rows else image.span
    silent = [Gap(0, first)]
    for index, row in enumerate(rows):
        if row <= _PC:  # GAP is 0: there is nothing above the pc
            end = rows[index + 1] & _PC if index + 1 < len(rows) else image.span
            silent.append(Gap(row, end))
    ranges = iter(image.code_ranges())
    start, end = -1, -1
    for gap in silent:
        while gap.end > end:
            if max(gap.start, start) < end:
                yield from _long_enough(max(gap.start, start), min(gap.end, end))
            following = next(ranges, None)
            if following is None:
                return
            start, end = following[0], following[0] + following[1]
        yield from _long_enough(max(gap.start, start), gap.end)


def _long_enough(start: int, end: int) -> Iterator[Gap]:
    if end - start >= MIN_GAP_BYTES:
        yield Gap(start, end)


def _scratch_rows(rows: "array[int]", image: Image, left: int) -> dict[Gap, list[int]]:
    """Rows of code that keeps the CFA in a scratch register from its beginning on (ciphers in
    assembly), by following how far the stack pointer moves; at most `left` bytes of it."""
    filled: dict[Gap, list[int]] = {}
    for index in range(1, len(rows) - 1):
        if rows[index] & ~_PC != SCRATCH or rows[index - 1] & ~_PC != _RETURN_ON_TOP:
            continue
        begin, start, end = (row & _PC for row in rows[index - 1 : index + 2])
        left -= end - begin
        if left < 0:
            break
        found = follow(image.read_code(begin, end - begin), begin, [begin], -1)
        held = bisect_right(found, start, key=lambda row: row & _PC)
        words = [start | found[held - 1] & ~_PC, *found[held:]] if held else []
        filled[Gap(start, end)] = [
            row & _PC | SCRATCH if row & ~_PC == GAP else row for row in words
        ]
    return filled


def _linkage_rows(gap: Gap, image: Image) -> list[int]:
    """Rows of a procedure linkage table that lies in `gap`: some linkers describe none."""
    for section in image.elf_sections:
        start = section.addr - image.base
        if start != gap.start or start + section.size > gap.end or section.size < 32:
            continue
        end = [start + section.size | GAP]
        if section.name == ".plt":  # the first entry pushes at once, the others as binutils' do
            pushed = word(Rule.CFA_RSP, 2), word(Rule.CFA_RSP, 3), word(Rule.CFA_PLT)
            return [start | pushed[0], start + 6 | pushed[1], start + 16 | pushed[2], *end]
        if section.name in (".plt.got", ".plt.sec"):
            return [start | _RETURN_ON_TOP, *end]
    return []


def _function_starts(image: Image) -> Iterator[int]:
    """Addresses of functions, less the base, of the symbol tables."""
    left = MAX_SYMBOL_BYTES
    for section in image.elf_sections:
        if section.type not in (SHT_SYMTAB, SHT_DYNSYM) or section.size > left:
            continue
        left -= section.size
        for offset in range(0, section.size // 24 * 24, _PIECE_BYTES):
            wanted = min(_PIECE_BYTES, section.size // 24 * 24 - offset)
            piece = image.read(section.offset + offset, wanted)
            words = array("Q", piece[: len(piece) // 24 * 24])
            for head, value in zip(words[0::3], words[1::3], strict=True):
                if head >> 32 & 0xF in (STT_FUNC, STT_GNU_IFUNC):
                    yield value - image.base


def _spliced(rows: "array[int]", filled: dict[Gap, list[int]]) -> "array[int]":
    out = array("Q")
    copied = 0
    for gap in sorted(filled):
        index = bisect_right(rows, gap.start, key=lambda row: row & _PC)
        out.extend(rows[copied:index])
        begins = bool(filled[gap]) and filled[gap][0] & _PC == gap.start
        if begins and out and out[-1] & _PC == gap.start:
            out.pop()  # else it still holds for what comes before the first new row
        out.extend(row for row in filled[gap] if row & _PC < gap.end)
        copied = index
        is_followed = copied < len(rows) and rows[copied] & _PC == gap.end
        if not is_followed and out and out[-1] & ~_PC != GAP and gap.end <= _PC:
            out.append(gap.end | GAP)
    out.extend(rows[copied:])
    return out
