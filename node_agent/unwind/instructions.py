"""Lengths of x86-64 instructions, and what they do to the stack pointer and the flow of control.

Source: Intel's Software Developer's Manual, volume 2, chapter 2 and appendix A. Only what compilers
emit is told apart; what isn't is decoded for its length, and bytes that are no instruction end the
decoding.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple


class Effect(IntEnum):
    """What an instruction does; `value` of an Instruction belongs to it."""

    NONE = 0
    PUSH = 1  # value: the register
    POP = 2  # value: the register
    MOVE = 3  # value is added to rsp
    LOSE = 4  # rsp becomes something else
    SET_FRAME = 5  # rbp = rsp
    LEAVE = 6  # rsp = rbp, then rbp is popped
    ZERO_RBP = 7
    BRANCH = 8  # perhaps; value: the distance
    JUMP = 9  # value: the distance
    CALL = 10  # value: the distance
    END = 11  # nothing follows: a return, or an instruction that traps
    JUMP_ELSEWHERE = 12  # to an address that isn't known here
    PADDING = 13  # nothing at all
    ADDRESS = 14  # takes an address in the file; value: the distance


class Instruction(NamedTuple):
    """An instruction of `size` bytes. Distances are from its end."""

    size: int
    effect: Effect = Effect.NONE
    value: int = 0


_PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")
_RSP, _RBP = 4, 5


def _one_byte_map() -> tuple[frozenset[int], dict[int, int]]:
    """Opcodes with a ModRM byte, and sizes of immediates (-1: 4, or 2 with prefix 66)."""
    modrm = {op for op in range(0x40) if op & 7 < 4}
    modrm |= {0x63, 0x69, 0x6B, *range(0x80, 0x90), 0xC0, 0xC1, 0xC6, 0xC7}
    modrm |= {*range(0xD0, 0xD4), *range(0xD8, 0xE0), 0xF6, 0xF7, 0xFE, 0xFF}
    sizes = {op: 1 for op in range(0x40) if op & 7 == 4} | {
        op: -1 for op in range(0x40) if op & 7 == 5
    }
    sizes |= dict.fromkeys((0x68, 0x69, 0x81, 0xA9, 0xC7, *range(0xB8, 0xC0)), -1)
    sizes |= dict.fromkeys((0x6A, 0x6B, *range(0x70, 0x81), 0x83, 0xA8, *range(0xB0, 0xB8)), 1)
    sizes |= dict.fromkeys((0xC0, 0xC1, 0xC6, 0xCD, *range(0xE0, 0xE8), 0xEB), 1)
    sizes |= {0xC2: 2, 0xC8: 3, 0xCA: 2, 0xE8: 4, 0xE9: 4} | dict.fromkeys(range(0xA0, 0xA4), 8)
    return frozenset(modrm), sizes


_MODRM, _IMMEDIATES = _one_byte_map()
# Opcodes whose effect is looked at; those with a ModRM byte by `_modrm_effect`.
_TOLD_APART = (
    frozenset(
        (*range(0x50, 0x60), 0x68, 0x6A, *range(0x70, 0x80), *range(0xE0, 0xE4), 0xE8, 0xE9, 0xEB)
    )
    | frozenset(
        (0xC2, 0xC3, 0xCA, 0xCB, 0xCC, 0xF4, 0xC9, 0x90, 0x9C, 0x9D, 0xFF, 0x8F, 0x81, 0x83, 0x8D)
    )
    | frozenset(
        (0x31, 0x33, 0x89, 0x8B, 0x87, 0x01, 0x29, 0x21, 0x09, 0xC7, 0x03, 0x2B, 0x23, 0x63)
    )
)
_PLAIN = tuple(Instruction(size) for size in range(64))  # without an effect
_INVALID = frozenset(
    b"\x06\x07\x0e\x16\x17\x1e\x1f\x27\x2f\x37\x3f\x60\x61\x82\x9a\xce\xd4\xd5\xd6\xea"
)
_PLAIN_0F = frozenset(
    (5, 6, 7, 8, 9, 0x0B, 0x0E, *range(0x30, 0x38), 0x77, *range(0x80, 0x90))
) | frozenset((0xA0, 0xA1, 0xA2, 0xA8, 0xA9, 0xAA, *range(0xC8, 0xD0)))
_BYTE_0F = frozenset((0x0F, *range(0x70, 0x74), 0xA4, 0xAC, 0xBA, 0xC2, 0xC4, 0xC5, 0xC6))


def decode(code: bytes, at: int) -> Instruction | None:
    """The instruction at `at`; None where there is none."""
    try:
        found = _decode(code, at)
    except IndexError:
        return None
    return found if found is not None and at + found.size <= len(code) else None


def _decode(code: bytes, start: int) -> Instruction | None:
    at, rex, is_short = start, 0, False
    op = code[at]
    while op in _PREFIXES:
        is_short |= op == 0x66
        at += 1
        op = code[at]
        if at - start > 14:
            return None
    if op & 0xF0 == 0x40:
        rex = op
        at += 1
        op = code[at]
    at += 1
    if op == 0x0F:
        return _decode_0f(code, start, at)
    if op in (0xC4, 0xC5, 0x62):
        return _decode_vector(code, start, at, op)
    if op in _INVALID or (op == 0 and code[at] == 0):  # zeros would be one, but never are
        return None
    operand_at = at
    size = _IMMEDIATES.get(op, 0)
    if op in _MODRM:
        modrm = code[at]
        at += _modrm_size(code, at)
        if op in (0xF6, 0xF7) and modrm & 0x30 == 0:  # test; the others have no immediate
            size = 1 if op == 0xF6 else -1
    if size < 0:
        size = 2 if is_short and not rex & 8 else 4
        if 0xB8 <= op < 0xC0 and rex & 8:
            size = 8
    end = at + size
    if end > len(code):
        return None
    if op not in _TOLD_APART:
        return _PLAIN[end - start]
    effect, value = _effect(code, op, rex, operand_at, at, size)
    return Instruction(end - start, effect, value)


def _effect(
    code: bytes, op: int, rex: int, at: int, immediate_at: int, size: int
) -> tuple[Effect, int]:
    def immediate() -> int:
        return int.from_bytes(code[immediate_at : immediate_at + size], "little", signed=True)

    if 0x50 <= op < 0x58:
        return Effect.PUSH, op & 7 | (rex & 1) << 3
    if 0x58 <= op < 0x60:
        return Effect.POP, op & 7 | (rex & 1) << 3
    if op in (0x68, 0x6A):
        return Effect.PUSH, -1
    if 0x70 <= op < 0x80 or 0xE0 <= op < 0xE4:
        return Effect.BRANCH, immediate()
    if op in (0xE9, 0xEB):
        return Effect.JUMP, immediate()
    if op == 0xE8:
        return Effect.CALL, immediate()
    if op in (0xC2, 0xC3, 0xCA, 0xCB, 0xCC, 0xF4):
        return Effect.END, 0
    if op == 0xC9:
        return Effect.LEAVE, 0
    if op == 0x90 and not rex & 1:
        return Effect.PADDING, 0
    if op == 0x9C or op == 0x9D:  # pushf, popf
        return (Effect.PUSH if op == 0x9C else Effect.POP), -1
    if op in _MODRM:
        return _modrm_effect(code, op, rex, at, immediate)
    return Effect.NONE, 0


def _modrm_effect(
    code: bytes, op: int, rex: int, at: int, immediate: Callable[[], int]
) -> tuple[Effect, int]:
    modrm = code[at]
    mode, middle, low = modrm >> 6, modrm >> 3 & 7, modrm & 7
    register = middle | (rex & 4) << 1
    target = low | (rex & 1) << 3 if mode == 3 else -1
    if op == 0xFF:
        if middle == 6:
            return Effect.PUSH, -1
        return (Effect.JUMP_ELSEWHERE, 0) if middle in (4, 5) else (Effect.NONE, 0)
    if op == 0x8F:
        return Effect.POP, -1
    if op in (0x81, 0x83) and target == _RSP:
        if middle in (0, 5):
            return Effect.MOVE, immediate() if middle == 0 else -immediate()
        return (Effect.NONE, 0) if middle == 7 else (Effect.LOSE, 0)
    if op == 0x8D and register == _RSP:  # lea
        if low == 4 and code[at + 1] == 0x24 and not rex & 3 and mode in (1, 2):
            width = 1 if mode == 1 else 4
            return Effect.MOVE, int.from_bytes(code[at + 2 : at + 2 + width], "little", signed=True)
        return Effect.LOSE, 0
    if op == 0x8D and mode == 0 and low == 5:
        return Effect.ADDRESS, int.from_bytes(code[at + 1 : at + 5], "little", signed=True)
    if op in (0x31, 0x33) and target == register == _RBP:
        return Effect.ZERO_RBP, 0
    if (op, target, register) == (0x89, _RBP, _RSP) or (op, register, target) == (0x8B, _RBP, _RSP):
        return Effect.SET_FRAME, 0
    stores = op in (0x89, 0x87, 0x01, 0x29, 0x21, 0x09, 0x31, 0xC7)
    if (stores and target == _RSP) or (op in (0x8B, 0x03, 0x2B, 0x23, 0x63) and register == _RSP):
        return Effect.LOSE, 0
    return Effect.NONE, 0


def _decode_0f(code: bytes, start: int, at: int) -> Instruction | None:
    op = code[at]
    at += 1
    if 0x80 <= op < 0x90:
        distance = int.from_bytes(code[at : at + 4], "little", signed=True)
        return Instruction(at + 4 - start, Effect.BRANCH, distance)
    if op in (0x0B, 0xB9, 0xFF):  # ud2, ud1, ud0
        return Instruction(at - start, Effect.END)
    if op in _PLAIN_0F:
        return Instruction(at - start)
    is_padding = op == 0x1F
    if op == 0x38 or op == 0x3A:
        at += 1
    at += _modrm_size(code, at)
    size = at + (op in _BYTE_0F or op == 0x3A) - start
    return Instruction(size, Effect.PADDING if is_padding else Effect.NONE)


def _decode_vector(code: bytes, start: int, at: int, prefix: int) -> Instruction | None:
    """After C5, C4 or 62: VEX and EVEX."""
    table = 1 if prefix == 0xC5 else code[at] & (0x1F if prefix == 0xC4 else 7)
    at += {0xC5: 1, 0xC4: 2, 0x62: 3}[prefix]
    op = code[at]
    at += 1
    if table == 1 and op == 0x77:  # vzeroupper
        return Instruction(at - start)
    if table not in (1, 2, 3, 5, 6):
        return None
    at += _modrm_size(code, at)
    return Instruction(at + (table == 3 or (table == 1 and op in _BYTE_0F)) - start)


def _modrm_size(code: bytes, at: int) -> int:
    """Bytes of the ModRM byte, and of the SIB byte and the displacement behind it."""
    modrm = code[at]
    mode, low = modrm >> 6, modrm & 7
    if mode == 3:
        return 1
    size = 1
    if low == 4:
        size = 2
        low = code[at + 1] & 7
        if mode == 0:
            return 6 if low == 5 else 2
    elif mode == 0:
        return 5 if low == 5 else 1
    return size + (1 if mode == 1 else 4)
