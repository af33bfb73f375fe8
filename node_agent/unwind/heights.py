"""How high the stack is at an instruction, what the instructions of compilers change about that,
and the row's word for it."""

from typing import NamedTuple

from node_agent.unwind.instructions import Effect
from node_agent.unwind.rules import END, GAP, Rule, word

_RBP = 5  # as instructions number it


class Height(NamedTuple):
    """Where the CFA is: `bytes` above rsp, or 16 above rbp. `rbp`: where it is saved, from the CFA;
    0 when it isn't."""

    bytes: int
    rbp: int = 0
    has_frame: bool = False
    is_entry: bool = False


START = Height(8)
ENTRY = Height(8, is_entry=True)


def after(height: Height | None, effect: Effect, value: int) -> Height | None:
    """The height after an instruction that changes it; None: not known."""
    if height is None or height.is_entry:
        return height
    if effect is Effect.ZERO_RBP and not height.rbp:
        # The ABI's mark of the outermost frame: compiled code saves rbp before it changes it.
        return ENTRY
    if effect is Effect.SET_FRAME:
        return height._replace(has_frame=True) if height.rbp == -16 == -height.bytes else height
    if effect is Effect.LEAVE:
        return START if height.has_frame else None
    if height.has_frame:
        return START if effect is Effect.POP and value == _RBP else height
    if effect is Effect.LOSE:
        return None
    if effect is Effect.PUSH or effect is Effect.CALL:  # a call of what follows it
        rbp = -(height.bytes + 8) if value == _RBP and not height.rbp else height.rbp
        return Height(height.bytes + 8, rbp)
    if effect is Effect.POP:
        rbp = 0 if value == _RBP and height.rbp == -height.bytes else height.rbp
        return _sane(Height(height.bytes - 8, rbp))
    if effect is Effect.MOVE:
        return _sane(Height(height.bytes - value, height.rbp))
    return height


def _sane(height: Height) -> Height | None:
    return height if height.bytes >= 8 and height.bytes % 8 == 0 else None


def word_of(height: Height | None) -> int:
    if height is None:
        return GAP
    if height.is_entry:
        return END
    if height.has_frame:
        return word(Rule.CFA_RBP, 2, -2)
    if height.bytes >= 0x8000 * 8 or height.rbp < -0x400:
        return GAP
    return word(Rule.CFA_RSP, height.bytes // 8, height.rbp // 8)
