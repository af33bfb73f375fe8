"""Cuts call frame instructions (DWARF 5, section 6.4.2) into steps: instructions that change the
rules, and the one that then advances the address.

A regular expression does it for all but the instructions with a block of bytes in them, which are
rare: an alternative for each size would take longer to compile than most files take to be read.
"""

import re

_LEB = rb"[\x80-\xff]{0,9}[\x00-\x7f]"
_INSTRUCTION = b"|".join(
    (
        rb"[\x80-\xbf]" + _LEB,
        rb"[\xc0-\xff\x00\x0a\x0b]",
        rb"[\x06-\x08\x0d\x0e\x13\x2e]" + _LEB,
        rb"[\x05\x09\x0c\x11\x12\x14\x15]" + _LEB + _LEB,
    )
)
# Nothing at the end, or one byte where it can't be read. Both match everywhere, so neither is ever
# tried a second time.
_ADVANCE = rb"[\x40-\x7f]|\x02.|\x03..|\x04....|\Z|."
_STEPS = re.compile(rb"((?:%b)*)(%b)" % (_INSTRUCTION, _ADVANCE), re.DOTALL)
_INSTRUCTIONS = re.compile(_INSTRUCTION, re.DOTALL)
_ADVANCES = re.compile(_ADVANCE, re.DOTALL)
_LEBS = re.compile(_LEB)
_WITH_BLOCK = (b"\x0f", b"\x10", b"\x16")  # def_cfa_expression, expression, val_expression
_MAX_BLOCK = 127

# Of a program without blocks: what comes before each advance, and the advance. Of another one up to
# the first block.
cut = _STEPS.findall


def cut_all(program: bytes) -> list[tuple[bytes, bytes]]:
    """The same of any program, up to what can't be read."""
    steps: list[tuple[bytes, bytes]] = []
    at = begun = 0
    while True:
        following = _after_instruction(program, at)
        if following > at:
            at = following
            continue
        match = _ADVANCES.match(program, at)
        assert match is not None  # it matches everywhere
        advance = match[0]
        steps.append((program[begun:at], advance))
        at = begun = match.end()
        if not advance or not (0x40 <= advance[0] < 0x80 or len(advance) > 1):
            return steps


def is_cut_short(advance: bytes) -> bool:
    """Whether an advance that can't be read is the beginning of an instruction with a block."""
    return advance in _WITH_BLOCK


def instructions(chunk: bytes) -> list[bytes]:
    """What comes before an advance, one by one."""
    found: list[bytes] = []
    at = 0
    while (following := _after_instruction(chunk, at)) > at:
        found.append(chunk[at:following])
        at = following
    return found


def lebs(operands: bytes) -> list[bytes]:
    """The LEB128 numbers that follow each other, still encoded."""
    return _LEBS.findall(operands)


def _after_instruction(program: bytes, at: int) -> int:
    """Where the instruction at `at` ends; `at` where there is none, or one that advances."""
    match = _INSTRUCTIONS.match(program, at)
    if match is not None:
        return match.end()
    if program[at : at + 1] not in _WITH_BLOCK:
        return at
    size_at = at + 1
    if program[at] != 0x0F:
        register = _LEBS.match(program, size_at)
        if register is None:
            return at
        size_at = register.end()
    if size_at >= len(program) or not 0 < program[size_at] <= _MAX_BLOCK:
        return at
    end = size_at + 1 + program[size_at]
    return end if end <= len(program) else at
