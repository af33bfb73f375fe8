"""The pieces of an evaluator that the compiler split, in a file without symbols for them.

GCC with profile feedback puts hot, warm and cold parts of `_PyEval_EvalFrameDefault` far apart; in
a stripped file the symbol covers the first part only (1 of 84 KB in Debian's 3.14). The unwind
table still has an entry for each part (.eh_frame: Linux Standard Base 5, 10.6), and the first part
jumps into the middle of the others, as nothing jumps into the middle of another function.
"""

import struct
from bisect import bisect_right
from collections.abc import Iterator

MAX_FRAME_ENTRIES = 400_000
MIN_TARGETS = 3  # distinct ones inside an entry: a false jump in data hardly hits one three times
_POINTER_SIZES = {0x0: 8, 0x2: 2, 0x3: 4, 0x4: 8, 0xA: 2, 0xB: 4, 0xC: 8}  # DW_EH_PE_*
_PC_RELATIVE = 0x10
_JUMP, _PREFIX, _JUMP_IF = 0xE9, 0x0F, 0x80


def frame_entries(eh_frame: bytes, address: int) -> list[tuple[int, int]]:
    """(start, size) of every entry of an .eh_frame section at `address`, sorted; damaged ones are
    left out."""
    found: list[tuple[int, int]] = []
    encodings: dict[int, int] = {}
    position = 0
    while position + 8 <= len(eh_frame) and len(found) < MAX_FRAME_ENTRIES:
        (length,) = struct.unpack_from("<I", eh_frame, position)
        end = position + 4 + length
        if length == 0 or length >= 0xFFFFFFF0 or end > len(eh_frame):
            break
        at = position + 4
        (distance,) = struct.unpack_from("<I", eh_frame, at)
        try:
            if distance == 0:
                encodings[position] = _pointer_encoding(eh_frame[at + 4 : end])
            else:
                encoding = encodings.get(at - distance, 0)
                entry = _read_range(eh_frame, at + 4, end, encoding, address)
                if entry is not None:
                    found.append(entry)
        except (IndexError, ValueError, struct.error):
            pass
        position = end
    found.sort()
    return found


def split_pieces(code: bytes, start: int, entries: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """(start, end) of the entries that `code`, the function's first part at address `start`, jumps
    into the middle of."""
    starts = [entry[0] for entry in entries]
    targets: dict[tuple[int, int], set[int]] = {}
    for target in _jump_targets(code, start):
        if start <= target < start + len(code):
            continue
        index = bisect_right(starts, target) - 1
        if index < 0:
            continue
        first, size = entries[index]
        if first < target < first + size:
            targets.setdefault((first, first + size), set()).add(target)
    return sorted(piece for piece, hits in targets.items() if len(hits) >= MIN_TARGETS)


def _jump_targets(code: bytes, start: int) -> Iterator[int]:
    """Where every `jmp` and `jcc` with 4 bytes of distance leads; also what only looks like one."""
    for at in range(len(code) - 5):
        if code[at] == _JUMP:
            operand = at + 1
        elif code[at] == _PREFIX and code[at + 1] & 0xF0 == _JUMP_IF:
            operand = at + 2
        else:
            continue
        if operand + 4 <= len(code):
            yield (
                start
                + operand
                + 4
                + int.from_bytes(code[operand : operand + 4], "little", signed=True)
            )


def _pointer_encoding(cie: bytes) -> int:
    """How the entries of a common information entry write addresses; `cie` begins at its
    version. Raises ValueError, IndexError."""
    end = cie.index(0, 1)
    augmentation = cie[1:end]
    if not augmentation.startswith(b"z"):
        return 0
    at = end + 1
    for _ in range(3):  # code and data alignment, return address register
        at = _skip_leb(cie, at)
    at = _skip_leb(cie, at)  # length of the augmentation's data
    for letter in augmentation[1:]:
        if letter == ord("R"):
            return cie[at]
        if letter == ord("L"):
            at += 1
        elif letter == ord("P"):
            at += 1 + _POINTER_SIZES[cie[at] & 0x0F]
    return 0


def _read_range(
    eh_frame: bytes, at: int, end: int, encoding: int, address: int
) -> tuple[int, int] | None:
    width = _POINTER_SIZES.get(encoding & 0x0F)
    if width is None or at + 2 * width > end:
        return None
    signed = encoding & 0x08 != 0
    first = int.from_bytes(eh_frame[at : at + width], "little", signed=signed)
    size = int.from_bytes(eh_frame[at + width : at + 2 * width], "little")
    if encoding & 0x70 == _PC_RELATIVE:
        first += address + at
    return (first, size) if first > 0 and size > 0 else None


def _skip_leb(data: bytes, at: int) -> int:
    while data[at] & 0x80:
        at += 1
    return at + 1
