"""How one row says where the caller's registers are: `enum unwind_rule` of bpf/events.h.

A row is 8 bytes, little-endian: pc u32 (address less the module's base), then the word made here:
cfa s16 and rbp s8, both in units of 8 bytes, and rule u8.
"""

from enum import IntEnum
from typing import NamedTuple

from node_agent.unwind.expressions import RBP, RSP, At, Deref, Plt, recognise


class Rule(IntEnum):
    """The last byte of a row. `cfa` and `rbp` below are the row's fields, times 8.

    The return address is at CFA - 8, and the caller's rsp is the CFA. Where rbp is 0 the caller's
    rbp is this frame's, else it was saved at CFA + rbp. In the last two rules the field is
    addend | slot << 3, both in units of 8 bytes: addend 0 to 7, and slot is what rbp is elsewhere,
    but only down to -16.
    """

    UNSUPPORTED = 0  # cfa 0: no unwind information here; else a rule that no row can hold
    CFA_RSP = 1  # CFA = rsp + cfa
    CFA_RBP = 2  # CFA = rbp + cfa
    CFA_PLT = 3  # CFA = rsp + 8, and 8 more where (ip & 15) >= 11: a PLT entry has pushed
    END = 4  # the return address is undefined: an entry point
    SIGNAL = 5  # rsp is the address of a ucontext
    CFA_RSP_DEREF = 6  # CFA = word at rsp + cfa, plus addend
    CFA_RBP_DEREF = 7  # CFA = word at rbp + cfa, plus addend; slot 0: the caller's rbp is at rbp


_PLT_PUSHED_AT = 11
_MAX_ADDEND = 7
_SAVED_AT_RBP = b"\x76\x00"  # breg6 0
_DEREF_SLOTS = range(-128, 0, 8)


class Saved(NamedTuple):
    """A register's rule. `offset` from the CFA in bytes, or an expression for the place."""

    offset: int | bytes | None


UNCHANGED = Saved(None)
ELSEWHERE = Saved(b"")  # known to the compiler, but not a place in memory that a row could name


class Frame(NamedTuple):
    """What unwind information says about one range of code.

    `cfa` is (register, offset), or an expression, or None when nothing defines it. `return_address`
    is UNCHANGED where it is at CFA - 8 as the ABI wants, None where it is undefined.
    """

    cfa: tuple[int, int] | bytes | None
    rbp: Saved
    return_address: Saved | None


def word(rule: Rule, cfa: int = 0, rbp: int = 0) -> int:
    """The upper half of a row from its fields (in units of 8 bytes)."""
    return (cfa & 0xFFFF | (rbp & 0xFF) << 16 | rule << 24) << 32


GAP = word(Rule.UNSUPPORTED)
UNSUPPORTED = word(Rule.UNSUPPORTED, 1)
SCRATCH = word(Rule.UNSUPPORTED, 2)  # the CFA is in another register than rsp and rbp
END = word(Rule.END)
SIGNAL = word(Rule.SIGNAL)
# What pushes rbp first and keeps it: Go, and code compiled with frame pointers.
FRAME_POINTER = word(Rule.CFA_RBP, 2, -2)


def frame_word(frame: Frame, is_signal: bool) -> tuple[int, str]:
    """The word for a frame, and why it is UNSUPPORTED, else an empty string.

    `is_signal`: the code is the trampoline that a signal handler returns to.
    """
    if frame.return_address is None:
        return END, ""
    if is_signal:
        return SIGNAL, ""
    if frame.return_address is not UNCHANGED:
        return UNSUPPORTED, "return address not below the CFA"
    if frame.cfa is None:
        return UNSUPPORTED, "CFA undefined"
    if isinstance(frame.cfa, bytes):
        return _expression_word(frame.cfa, frame.rbp)
    register, offset = frame.cfa
    if register == RSP:
        return _checked(Rule.CFA_RSP, offset, frame.rbp)
    if register == RBP:
        return _checked(Rule.CFA_RBP, offset, frame.rbp)
    return SCRATCH, "CFA in another register than rsp and rbp"


def _expression_word(expression: bytes, rbp: Saved) -> tuple[int, str]:
    form = recognise(expression)
    if isinstance(form, Plt) and form.pushed_at == _PLT_PUSHED_AT:
        return word(Rule.CFA_PLT), ""
    if isinstance(form, At) and form.register in (RSP, RBP):
        rule = Rule.CFA_RSP if form.register == RSP else Rule.CFA_RBP
        return _checked(rule, form.offset, rbp)
    if isinstance(form, Deref):
        return _deref_word(form, rbp)
    return UNSUPPORTED, "CFA by another expression"


def _deref_word(form: Deref, rbp: Saved) -> tuple[int, str]:
    if form.offset % 8 or not -0x8000 <= form.offset // 8 < 0x8000:
        return UNSUPPORTED, "CFA offset that 16 bits can't hold"
    if form.addend % 8 or form.addend // 8 > _MAX_ADDEND:
        return UNSUPPORTED, "CFA by another expression"
    rule = Rule.CFA_RSP_DEREF if form.register == RSP else Rule.CFA_RBP_DEREF
    if rbp.offset is None and rule is Rule.CFA_RSP_DEREF:
        slot = 0
    elif isinstance(rbp.offset, int) and rbp.offset in _DEREF_SLOTS:
        slot = rbp.offset // 8
    elif (
        isinstance(rbp.offset, bytes)
        and recognise(rbp.offset) == At(RBP, 0)
        and rule is Rule.CFA_RBP_DEREF
    ):
        slot = 0
    else:
        return UNSUPPORTED, "rbp saved where no row says, and the CFA in memory"
    return word(rule, form.offset // 8, form.addend // 8 | slot << 3), ""


def _checked(rule: Rule, offset: int, rbp: Saved) -> tuple[int, str]:
    if offset % 8 or not -0x8000 <= offset // 8 < 0x8000:
        return UNSUPPORTED, "CFA offset that 16 bits can't hold"
    if rbp.offset is None:
        return word(rule, offset // 8), ""
    if isinstance(rbp.offset, bytes):
        return UNSUPPORTED, "rbp saved elsewhere than at a distance from the CFA"
    if rbp.offset % 8 or not -0x80 <= rbp.offset // 8 < 0x80 or rbp.offset == 0:
        return UNSUPPORTED, "distance from CFA to rbp that 8 bits can't hold"
    return word(rule, offset // 8, rbp.offset // 8), ""
