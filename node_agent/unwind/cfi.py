"""Entries of `.eh_frame` (Linux Standard Base, section 10.6) and `.debug_frame` (DWARF 5, section
6.4.1) of x86-64, read from untrusted input in pieces, so that a large section needs little memory.
"""

import re
import struct
from array import array
from collections import Counter
from typing import NamedTuple

from node_agent.symbols.elf import ReadAt
from node_agent.unwind.cfi_programs import Interpreter
from node_agent.unwind.cies import BrokenCieError, Cie, parse_cie, read_address
from node_agent.unwind.errors import NoRowsError

PIECE_BYTES = 1 << 20
MAX_ENTRY_BYTES = 1 << 18
MAX_FUNCTIONS = 1_000_000
MAX_ROWS = 4_000_000  # before those that repeat each other are left out
MAX_CIES = 50_000
MAX_SECTION_BYTES = 256 << 20

_USUAL = struct.Struct("<IIiI")  # length, distance to the CIE, start (pcrel sdata4), size
_ZEROS = re.compile(rb"\0*")
_PADDING = bytes(_USUAL.size + 32)
_DEBUG_CIE = 0xFFFFFFFF
_DWARF64 = 0xFFFFFFFF


class Section(NamedTuple):
    """Where unwind information lies: offset and size for `read`, and its address (ELF's vaddr).

    `is_debug`: it is laid out as `.debug_frame`. `ends_at_zero`: `size` is only a limit, the
    information ends with an entry of length 0. `unpacked`: what it holds, where the file has it
    compressed; `offset` is then one in there.
    """

    offset: int
    size: int
    address: int
    is_debug: bool = False
    ends_at_zero: bool = False
    unpacked: bytes = b""

    def reader(self, read: ReadAt) -> ReadAt:
        """What reads at `offset`: `read` for what isn't compressed."""
        content = self.unpacked
        return (lambda offset, size: content[offset : offset + size]) if content else read


class Functions:
    """Functions in the order of their entries, as columns. `starts` are addresses less the base;
    the rows of function `i` are `rows[firsts[i]:firsts[i + 1]]`, whose pcs are likewise relative to
    the base. `notes` counts what is left out or UNSUPPORTED, by reason."""

    def __init__(self) -> None:
        self.starts = array("I")
        self.sizes = array("I")
        self.firsts = array("I", [0])
        self.rows = array("Q")
        self.notes: Counter[str] = Counter()

    def add(self, start: int, size: int, rows: tuple[int, ...]) -> None:
        """Append a function whose `rows` are relative to its start."""
        if rows[-1] & 0xFFFFFFFF >= size:
            rows = tuple(row for row in rows if row & 0xFFFFFFFF < size)
        self.starts.append(start)
        self.sizes.append(size)
        self.rows.extend([row + start for row in rows])
        self.firsts.append(len(self.rows))


class Reader:
    """Reads the functions of one section into `functions`. Addresses below `base` or from `base` +
    `span` on are no code of the file; `span` is at most 4 GiB."""

    def __init__(
        self, read: ReadAt, section: Section, base: int, span: int, functions: Functions
    ) -> None:
        self._read = section.reader(read)
        self._section = section
        self._base = base
        self._span = span
        self._cies: dict[int, Cie | None] = {}
        self._interpreters: dict[tuple[object, ...], Interpreter] = {}
        self._is_over = False
        self.functions = functions

    def run(self) -> None:
        """Append all functions; stops, with a note, where the section can't be read.

        Raises NoRowsError when there are more of them than the limits allow.
        """
        position, size = 0, self._section.size
        while position < size and not self._is_over:
            wanted = min(PIECE_BYTES, size - position)
            piece = self._read(self._section.offset + position, wanted)
            used = self._read_piece(piece, position)
            if used == 0:
                break
            position += used

    def _read_piece(self, piece: bytes, position: int) -> int:
        """Read the entries that lie in `piece` wholly; how many bytes they have."""
        window = piece + _PADDING
        end, at = len(piece), 0
        section, functions = self._section, self.functions
        notes, rows, add = functions.notes, functions.rows, functions.add
        unpack, cies, span = _USUAL.unpack_from, self._cies, self._span
        # What a pc-relative start at offset 0 of the piece would be relative to.
        here = section.address + position - self._base + 8
        while at + 4 <= end:
            length, identity, start, size = unpack(window, at)
            if length == 0:
                if section.ends_at_zero:
                    self._is_over = True
                    break
                zeros = _ZEROS.match(window, at, end)
                assert zeros is not None  # the length just read is four of them
                at += (zeros.end() - at) & -4
                continue
            following = at + 4 + length
            if following > end:
                if length > MAX_ENTRY_BYTES or position + following > section.size:
                    self._end("sections with an entry that can't be read")
                break
            if length < 4:
                self._end("sections with an entry that can't be read")
                break
            if section.is_debug:
                if identity == _DEBUG_CIE:
                    at = following
                    continue
                cie_at = identity
            elif identity == 0:
                at = following
                continue
            else:
                cie_at = position + at + 4 - identity
            cie = cies[cie_at] if cie_at in cies else self._find_cie(cie_at)
            if cie is None:
                notes["functions with a description that can't be read"] += 1
                at = following
                continue
            if cie.is_usual:
                start += here + at
                data_at = at + 16
            else:
                start, size, data_at = self._place(cie, window, at + 8, here + at)
            if cie.has_augmentation:
                skipped = window[data_at]
                data_at += 1 + skipped if skipped < 0x80 else length
            if 0 <= start < span and 0 < size <= span - start and data_at <= following:
                instructions = window[data_at:following]
                made = cie.programs.get(instructions) or cie.interpreter.program(instructions)
                add(start, size, made.rows)
                if made.reasons:
                    notes.update(made.reasons)
            else:
                notes["functions outside the file's code"] += 1
            at = following
            if len(rows) > MAX_ROWS or len(functions.starts) > MAX_FUNCTIONS:
                raise NoRowsError(
                    f"more than {MAX_ROWS} rows or {MAX_FUNCTIONS} functions: the file is too large"
                )
        return at

    def _place(self, cie: Cie, window: bytes, at: int, here: int) -> tuple[int, int, int]:
        """Start (less the base), size, and where the entry goes on, of a function whose addresses
        are not in the usual form; a size of 0 when they can't be read."""
        start, at_size = read_address(window, at, cie.encoding, here + self._base)
        size, following = read_address(window, at_size, cie.encoding & 0x0F, 0)
        if start is None or size is None:
            return 0, 0, at
        return start - self._base, size, following

    def _end(self, reason: str) -> None:
        self.functions.notes[reason] += 1
        self._is_over = True

    def _find_cie(self, at: int) -> Cie | None:
        """The CIE at an offset of the section, remembered; None when it can't be read."""
        if len(self._cies) > MAX_CIES:
            raise NoRowsError(f"more than {MAX_CIES} kinds of functions: no real file has so many")
        cie = None
        if 0 <= at < self._section.size - 4:
            entry = self._read(self._section.offset + at, 4)
            length = int.from_bytes(entry, "little")
            if 4 <= length <= min(MAX_ENTRY_BYTES, self._section.size - at - 4):
                entry = self._read(self._section.offset + at + 4, length)
                try:
                    cie = parse_cie(entry, self._section.is_debug, self._interpreters)
                except BrokenCieError as error:
                    self.functions.notes[str(error)] += 1
        self._cies[at] = cie
        return cie
