"""The text of a perf map as a table of where names stand in it: pure, in bounded memory.

Format: one `<hex start> <hex size> <name>` a line (tools/perf/Documentation/jit-interface.txt in
the Linux source); Java's `jcmd Compiler.perfmap` writes 0x before the numbers. An entry takes 16
bytes: its name stays in the file until somebody asks for it.
"""

import re
from array import array
from bisect import bisect_left, bisect_right
from typing import NamedTuple

MAX_ENTRIES = 250_000  # 4 MB
MAX_LINE_BYTES = 16 << 10
_MAX_CODE_BYTES = 256 << 20  # of one function
_ADDRESS_END = 1 << 63
_LINE = re.compile(rb"^(?:0x)?([0-9a-fA-F]{1,16}) (?:0x)?([0-9a-fA-F]{1,16}) [^\n]", re.M)


class Entry(NamedTuple):
    """Code of one function: `end` is behind its last byte, `line` where its line begins in the
    file, in bytes."""

    start: int
    end: int
    line: int


class Parsed(NamedTuple):
    """Entries of a piece of text in its order, and how many of its lines are none."""

    entries: list[Entry]
    bad_lines: int


def parse_lines(text: bytes, position: int) -> Parsed:
    """The entries of `text`, whole lines that begin at byte `position` of the file."""
    entries = []
    for match in _LINE.finditer(text):
        start, size = int(match[1], 16), int(match[2], 16)
        if 0 < size <= _MAX_CODE_BYTES and start + size < _ADDRESS_END:
            entries.append(Entry(start, start + size, position + match.start()))
    return Parsed(entries, text.count(b"\n") - len(entries))


class PerfMapTable:
    """Entries sorted by address, none overlapping: a later one takes the place of all that it
    overlaps, because their memory has been used again."""

    def __init__(self) -> None:
        self._starts = array("Q")
        self._sizes = array("I")
        self._lines = array("I")

    def __len__(self) -> int:
        return len(self._starts)

    def find(self, address: int) -> Entry | None:
        """The entry that holds `address`."""
        index = bisect_right(self._starts, address) - 1
        if index < 0 or address >= self._starts[index] + self._sizes[index]:
            return None
        start = self._starts[index]
        return Entry(start, start + self._sizes[index], self._lines[index])

    def merge(self, entries: list[Entry]) -> list[int]:
        """Add `entries`, which are later than all before; the starts of those that had to go.

        Costs a copy of the table, so give it many at a time. The table may grow beyond
        MAX_ENTRIES by this one call: whoever fills it looks.
        """
        removed: list[int] = []
        starts, sizes, lines = array("Q"), array("I"), array("I")
        kept = _latest(entries)
        done = added = 0  # entries of the old table that are copied or gone; of `kept`, added
        for span_start, span_end in _spans(entries):
            first = self._first_overlap(span_start, done)
            starts.extend(self._starts[done:first])
            sizes.extend(self._sizes[done:first])
            lines.extend(self._lines[done:first])
            done = bisect_left(self._starts, span_end, first)
            removed.extend(self._starts[first:done])
            while added < len(kept) and kept[added].start < span_end:
                entry = kept[added]
                starts.append(entry.start)
                sizes.append(entry.end - entry.start)
                lines.append(entry.line)
                added += 1
        starts.extend(self._starts[done:])
        sizes.extend(self._sizes[done:])
        lines.extend(self._lines[done:])
        self._starts, self._sizes, self._lines = starts, sizes, lines
        return removed

    def _first_overlap(self, start: int, low: int) -> int:
        """Index of the first entry from `low` on that does not end before `start`."""
        index = bisect_left(self._starts, start, low)
        if index > low and self._starts[index - 1] + self._sizes[index - 1] > start:
            return index - 1
        return index


def _spans(entries: list[Entry]) -> list[tuple[int, int]]:
    """What all `entries` cover together: (start, end), sorted and apart."""
    spans: list[tuple[int, int]] = []
    for start, end, _ in sorted(entries):
        if spans and start < spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((start, end))
    return spans


def _latest(entries: list[Entry]) -> list[Entry]:
    """`entries` without those that a later one overlaps, sorted by address."""
    kept: list[Entry] = []
    for entry in entries:
        if not kept or entry.start >= kept[-1].end:  # most writers go upwards
            kept.append(entry)
            continue
        first = bisect_left(kept, entry[:1])
        if first > 0 and kept[first - 1].end > entry.start:
            first -= 1
        kept[first : bisect_left(kept, (entry.end,))] = [entry]
    return kept
