"""DWARF expressions that occur in unwind information of x86-64, recognised as whole patterns.

Expressions are programs (DWARF 5, section 2.5); the kernel side runs none of them. What compilers,
linkers and hand-written assembly put there takes few forms, and those become rules of their own.
"""

import re
from typing import NamedTuple

RBP, RSP = 6, 7

_SLEB = rb"([\x80-\xff]{0,4}[\x00-\x7f])"
# breg7 8, breg16 0, lit15, and, litN, ge, lit3, shl, plus: binutils' for a PLT of 16-byte entries;
# N is the offset in an entry behind its `push`.
_PLT = re.compile(rb"\x77\x08\x80\x00\x3f\x1a([\x30-\x4f])\x2a\x33\x24\x22\Z")
# bregR offset, deref, and perhaps plus_uconst addend.
_DEREF = re.compile(rb"([\x76\x77])" + _SLEB + rb"\x06(?:\x23([\x00-\x7f]))?\Z", re.DOTALL)
# bregR offset
_REGISTER = re.compile(rb"([\x70-\x7f])" + _SLEB + rb"\Z", re.DOTALL)


class Plt(NamedTuple):
    """CFA = rsp + 8, and 8 more from byte `pushed_at` of each 16-byte entry on."""

    pushed_at: int


class Deref(NamedTuple):
    """CFA = the word at `register` + `offset`, plus `addend`."""

    register: int
    offset: int
    addend: int


class At(NamedTuple):
    """An address: `register` + `offset`."""

    register: int
    offset: int


def recognise(expression: bytes) -> Plt | Deref | At | None:
    """What the expression computes; None when it has another form."""
    if match := _REGISTER.match(expression):
        return At(match[1][0] - 0x70, signed_leb(match[2]))
    if match := _DEREF.match(expression):
        addend = match[3][0] if match[3] else 0
        return Deref(match[1][0] - 0x70, signed_leb(match[2]), addend)
    if match := _PLT.match(expression):
        return Plt(match[1][0] - 0x30)
    return None


def unsigned_leb(encoded: bytes) -> int:
    """The value of a whole ULEB128 number."""
    value = 0
    for shift, byte in enumerate(encoded):
        value |= (byte & 0x7F) << 7 * shift
    return value


def signed_leb(encoded: bytes) -> int:
    """The value of a whole SLEB128 number."""
    value = unsigned_leb(encoded)
    bits = 7 * len(encoded)
    return value - (1 << bits) if value >> (bits - 1) & 1 else value
