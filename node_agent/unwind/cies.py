"""Common information entries: what many functions' unwind information begins with."""

import struct
from typing import NamedTuple

from node_agent.unwind.cfi_programs import RETURN_ADDRESS, Interpreter, Program
from node_agent.unwind.errors import UnwindError
from node_agent.unwind.expressions import signed_leb, unsigned_leb

_USUAL_ENCODING = 0x1B  # relative to its own place, 4 bytes, signed
_ABSOLUTE, _RELATIVE = 0x00, 0x10
_FORMATS = {
    kind: struct.Struct(layout)
    for kind, layout in zip(
        (0x00, 0x02, 0x03, 0x04, 0x0A, 0x0B, 0x0C),
        ("<Q", "<H", "<I", "<Q", "<h", "<i", "<q"),
        strict=True,
    )
}
_OMITTED = 0xFF
_ADDRESS_MASK = (1 << 64) - 1
MAX_INTERPRETERS = 256


class BrokenCieError(UnwindError):
    """A common information entry can't be read; the message is a reason to count."""


class Cie(NamedTuple):
    """`encoding` of its functions' addresses (DW_EH_PE_*); `programs` are those that its
    interpreter remembers."""

    interpreter: Interpreter
    programs: dict[bytes, Program]
    encoding: int
    is_usual: bool
    has_augmentation: bool


def parse_cie(
    entry: bytes, is_debug: bool, interpreters: dict[tuple[object, ...], Interpreter]
) -> Cie:
    """The CIE in `entry`, which follows its length. `interpreters` are those of other entries,
    which are used again. Raises BrokenCieError."""
    try:
        return _parse(entry, is_debug, interpreters)
    except (IndexError, ValueError, struct.error) as error:
        raise BrokenCieError("descriptions that end early") from error


def read_address(data: bytes, at: int, encoding: int, place: int) -> tuple[int | None, int]:
    """The address (or size, as encoded) at `at`, and where the data goes on. `place` is the address
    of `at`. None when the encoding is one that functions' addresses don't have."""
    layout = _FORMATS.get(encoding & 0x0F)
    relation = encoding & 0xF0
    if layout is None or relation not in (_ABSOLUTE, _RELATIVE):
        return None, at
    try:
        (value,) = layout.unpack_from(data, at)
    except struct.error:
        return None, at
    return (value + place if relation == _RELATIVE else value) & _ADDRESS_MASK, at + layout.size


def _parse(
    entry: bytes, is_debug: bool, interpreters: dict[tuple[object, ...], Interpreter]
) -> Cie:
    if entry[:4] != (b"\xff\xff\xff\xff" if is_debug else bytes(4)):
        raise BrokenCieError("functions without a description")
    version, at = entry[4], entry.index(0, 5)
    augmentation = entry[5:at]
    at += 1
    if version not in (1, 3, 4):
        raise BrokenCieError("descriptions of an unknown version")
    if version == 4:
        if entry[at : at + 2] != b"\x08\x00":
            raise BrokenCieError("descriptions of another address size")
        at += 2
    code_factor, at = _leb(entry, at)
    data_factor, at = _leb(entry, at)
    if version == 1:
        register, at = entry[at], at + 1
    else:
        encoded, at = _leb(entry, at)
        register = unsigned_leb(encoded)
    if register != RETURN_ADDRESS:
        raise BrokenCieError("descriptions with another return address register")
    encoding, is_signal = 0, False
    if augmentation[:1] == b"z":
        encoded, at = _leb(entry, at)
        following = at + unsigned_leb(encoded)
        encoding, is_signal = _augment(augmentation[1:], entry[at:following])
        at = following
    elif augmentation == b"S":  # letters without data need none of it
        is_signal = True
    elif augmentation:
        raise BrokenCieError("descriptions with an unknown augmentation")
    key = (code_factor, data_factor, is_signal, entry[at:])
    interpreter = interpreters.get(key)
    if interpreter is None:
        if len(interpreters) >= MAX_INTERPRETERS:
            raise BrokenCieError("too many different descriptions")
        interpreter = interpreters[key] = Interpreter(
            unsigned_leb(code_factor), signed_leb(data_factor), entry[at:], is_signal
        )
    is_usual = encoding == _USUAL_ENCODING
    return Cie(interpreter, interpreter.programs, encoding, is_usual, augmentation[:1] == b"z")


def _augment(letters: bytes, data: bytes) -> tuple[int, bool]:
    """The encoding of addresses, and whether the functions are signal trampolines."""
    encoding, is_signal, at = 0, False, 0
    for letter in letters.decode("latin-1"):
        if letter == "R":
            encoding, at = data[at], at + 1
        elif letter == "L":
            at += 1
        elif letter == "P":
            kind = data[at]
            if kind != _OMITTED:
                at += (
                    _FORMATS[0].size if kind & 0x0F not in _FORMATS else _FORMATS[kind & 0x0F].size
                )
            at += 1
        elif letter == "S":
            is_signal = True
        elif letter not in "BG":  # pointer authentication, memory tagging: of other processors
            raise BrokenCieError("descriptions with an unknown augmentation")
    return encoding, is_signal


def _leb(data: bytes, at: int) -> tuple[bytes, int]:
    """The LEB128 number at `at`, still encoded, and where the data goes on."""
    end = at
    while data[end] & 0x80:
        end += 1
    if end - at > 9:
        raise ValueError("a number of more than 64 bits")
    return data[at : end + 1], end + 1
