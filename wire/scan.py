"""How many items a msgpack body has, before any of them becomes an object. Pure.

A byte on the wire can become 64 bytes in memory (an empty map becomes a dict), and a decoder makes
them all in one piece. The walk here makes nothing, stops at the first item too many, and lets other
threads run. Source: https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from wire import limits
from wire.errors import MalformedError, TooLargeError

_STR, _BIN_OR_EXT, _ARRAY, _MAP = range(4)
# By first byte: bytes of an item whose size that byte gives, and items inside it.
_SIZES = [1] * 256
_INSIDE = [0] * 256
# By first byte, for the others: what it is, bytes of its length, bytes before its contents.
_LONG: dict[int, tuple[int, int, int]] = {}


def _fill_tables() -> None:
    for count in range(16):
        _INSIDE[0x80 + count] = 2 * count
        _INSIDE[0x90 + count] = count
    for length in range(32):
        _SIZES[0xA0 + length] = 1 + length
    for first, size in ((0xCA, 5), (0xCB, 9)):  # floats
        _SIZES[first] = size
    for power in range(4):
        _SIZES[0xCC + power] = _SIZES[0xD0 + power] = 1 + (1 << power)  # integers
    for power in range(5):
        _SIZES[0xD4 + power] = 2 + (1 << power)  # extensions of a fixed size
    for power in range(3):
        width = 1 << power
        _LONG[0xC4 + power] = (_BIN_OR_EXT, width, 1 + width)
        _LONG[0xC7 + power] = (_BIN_OR_EXT, width, 2 + width)
        _LONG[0xD9 + power] = (_STR, width, 1 + width)
    for power in range(2):
        width = 2 << power
        _LONG[0xDC + power] = (_ARRAY, width, 1 + width)
        _LONG[0xDE + power] = (_MAP, width, 1 + width)
    for first in _LONG:
        _SIZES[first] = 0


_fill_tables()


def check_items(body: bytes, most: int) -> None:
    """Raise TooLargeError for a body of more than `most` items, or of too much text in one of them
    or in all. What is malformed otherwise is left to the decoder.

    Keys, values and containers count as one item each.
    """
    if len(body) <= min(most, limits.MAX_TEXT_BYTES):
        return  # an item has at least one byte
    sizes, inside = _SIZES, _INSIDE
    left, room, at, text = 1, most, 0, 0
    try:
        while left:
            first = body[at]
            left += inside[first] - 1
            room -= 1
            size = sizes[first]
            at += size
            if not size:
                kind, width, head = _LONG[first]
                length = int.from_bytes(body[at + 1 : at + 1 + width], "big")
                at += head
                if kind == _ARRAY:
                    left += length
                elif kind == _MAP:
                    left += 2 * length
                else:
                    at += length
                if kind == _STR:
                    text += length
                    _check_text(length, text)
            if left > room:
                raise TooLargeError(f"more than {most} items in a message")
    except IndexError:
        raise MalformedError("the body ends inside an item") from None


def _check_text(length: int, so_far: int) -> None:
    if length > limits.MAX_TEXT_BYTES:
        raise TooLargeError(
            f"a text of {length} bytes; at most {limits.MAX_TEXT_BYTES} are allowed"
        )
    if so_far > limits.MAX_TEXTS_BYTES:
        raise TooLargeError(f"texts of more than {limits.MAX_TEXTS_BYTES} bytes in a message")
