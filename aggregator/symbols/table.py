"""Kernel symbol tables: the text that a node sends, packed for looking up by bisection.

Packed layout, little-endian: b"FFT1", u32 symbols, u32 bytes of names, then u64 offsets
(ascending), u32 ends of names, and the names as one UTF-8 text. Pure.
"""

import struct
import sys
from array import array
from bisect import bisect_right

from aggregator.symbols.errors import RefusedExtractError

_MAGIC = b"FFT1"
_HEADER = struct.Struct("<4sII")
_MOST_SYMBOLS = 2_000_000
# Tables carry no sizes; a symbol reaches to the next one, and the last one (or a hole, such as the
# one between text and init text) no further than this.
_LONGEST_FUNCTION_BYTES = 1 << 20


def pack(text: bytes) -> bytes:
    """Packed table of lines "<hex offset> <name>"; of several names of an offset the first stays.

    Raises RefusedExtractError on lines of another shape, or more than 2,000,000 of them.
    """
    symbols: dict[int, bytes] = {}
    lines = text.split(b"\n")
    if len(lines) > _MOST_SYMBOLS:
        raise RefusedExtractError(f"{len(lines)} symbols; at most {_MOST_SYMBOLS} are read")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        offset_text, _, name = line.partition(b" ")
        try:
            offset = int(offset_text, 16)
            name.decode()
        except ValueError:
            raise RefusedExtractError(f'line {number} is not "<hex offset> <name>"') from None
        if not name or not 0 <= offset < 1 << 63:
            raise RefusedExtractError(f"line {number} has no name or an offset out of range")
        symbols.setdefault(offset, name)
    if not symbols:
        raise RefusedExtractError("the table has no symbol")
    offsets = array("Q", sorted(symbols))
    names = [symbols[offset] for offset in offsets]
    ends = array("I")
    end = 0
    for name in names:
        end += len(name)
        ends.append(end)
    return _HEADER.pack(_MAGIC, len(offsets), end) + b"".join(
        (_little(offsets), _little(ends), *names)
    )


class Table:
    """A packed table, opened for look-ups. Raises RefusedExtractError when it is damaged."""

    def __init__(self, packed: bytes) -> None:
        try:
            magic, count, name_bytes = _HEADER.unpack_from(packed)
        except struct.error as error:
            raise RefusedExtractError(f"damaged table: {error}") from error
        if magic != _MAGIC or len(packed) != _HEADER.size + count * 12 + name_bytes or not count:
            raise RefusedExtractError("damaged table: sizes do not fit")
        names_at = _HEADER.size + count * 12
        self._offsets = array("Q", packed[_HEADER.size : _HEADER.size + count * 8])
        self._ends = array("I", packed[_HEADER.size + count * 8 : names_at])
        self._names = packed[names_at:]
        if sys.byteorder == "big":
            self._offsets.byteswap()
            self._ends.byteswap()

    def lookup(self, offset: int) -> str | None:
        """Name of the symbol that `offset` lies in; None before the first or far from any."""
        index = bisect_right(self._offsets, offset) - 1
        if index < 0 or offset - self._offsets[index] >= _LONGEST_FUNCTION_BYTES:
            return None
        start = self._ends[index - 1] if index else 0
        return self._names[start : self._ends[index]].decode(errors="replace")


def _little(values: "array[int]") -> bytes:
    if sys.byteorder == "big":
        values = array(values.typecode, values)
        values.byteswap()
    return values.tobytes()
