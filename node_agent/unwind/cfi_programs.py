"""Call frame instructions (DWARF 5, section 6.4.2) to rows, for x86-64.

Millions of instructions have to become rows in seconds, so nothing is interpreted twice: a program
is cut at the instructions that advance the address (cfi_steps.py), and whole programs as well as
the steps from state to state are remembered by their bytes. The memories are bounded; hostile
programs make them useless, not large.
"""

from typing import NamedTuple

from node_agent.unwind.cfi_steps import cut, cut_all, instructions, is_cut_short, lebs
from node_agent.unwind.expressions import RBP, signed_leb, unsigned_leb
from node_agent.unwind.rules import (
    ELSEWHERE,
    UNCHANGED,
    UNSUPPORTED,
    Frame,
    Saved,
    frame_word,
)

RETURN_ADDRESS = 16
MAX_REMEMBERED_PROGRAMS = 1 << 14
MAX_REMEMBERED_ROWS = 1 << 17
MAX_REMEMBERED_STEPS = 1 << 14
MAX_PROGRAM_BYTES = 1 << 18
MAX_DEPTH = 64  # of DW_CFA_remember_state
UNREADABLE = "instructions that can't be read"


class Remembered(NamedTuple):
    """The rules that an instruction put aside, and those put aside before them."""

    frame: Frame
    before: "Remembered | None"


class State(NamedTuple):
    """Where an interpretation is: the rules now, and those remembered, (last, (before it, ...))."""

    frame: Frame
    remembered: "Remembered | None" = None
    depth: int = 0


class Program(NamedTuple):
    """Rows of a program relative to where its code begins, each a distance in bytes | word, with
    strictly ascending distances; why rows are UNSUPPORTED, an entry a row."""

    rows: tuple[int, ...]
    reasons: tuple[str, ...]


_UNREADABLE_PROGRAM = Program((UNSUPPORTED,), (UNREADABLE,))


class _Node:
    """A state, its word, and the steps from it that have been taken."""

    __slots__ = ("reason", "state", "steps", "word")

    def __init__(self, state: State, is_signal: bool) -> None:
        self.state = state
        self.steps: dict[bytes, _Node] = {}
        self.word, self.reason = frame_word(state.frame, is_signal)


class Interpreter:
    """Makes rows of the programs that share a beginning (a common information entry).

    `initial` are the instructions before those of each function; `programs` those remembered.
    """

    def __init__(
        self, code_factor: int, data_factor: int, initial: bytes, is_signal: bool = False
    ) -> None:
        self._code_factor = code_factor
        self._data_factor = data_factor
        self._is_signal = is_signal
        self._initial = State(Frame(None, UNCHANGED, UNCHANGED))
        self._nodes: dict[State, _Node] = {}
        self._steps = 0
        self.programs: dict[bytes, Program] = {}
        self._rows = 0
        self._distances: dict[bytes, int | None] = {}
        node: _Node | None = self._node(self._initial)
        for chunk, advance in cut_all(initial):
            node = None if advance or node is None else self._step(node, chunk)
        # Without a beginning nothing is known: every row of it is UNSUPPORTED.
        self._initial = node.state if node is not None else self._initial
        self._root = self._node(self._initial)

    def program(self, code: bytes) -> Program:
        """The rows of a function with these instructions."""
        found = self.programs.get(code)
        if found is not None:
            return found
        made = self._interpret(code)
        self._rows += len(made.rows)
        if self._rows > MAX_REMEMBERED_ROWS or len(self.programs) >= MAX_REMEMBERED_PROGRAMS:
            self.programs.clear()
            self._rows = len(made.rows)
        self.programs[code] = made
        return made

    def _interpret(self, code: bytes) -> Program:
        if len(code) > MAX_PROGRAM_BYTES:
            return _UNREADABLE_PROGRAM
        if self._steps > MAX_REMEMBERED_STEPS:
            self._nodes.clear()
            self._steps, self._root = 0, self._node(self._initial)
        return (
            self._follow(cut(code))
            or self._follow(cut_all(code), is_whole=True)
            or _UNREADABLE_PROGRAM
        )

    def _follow(self, steps: list[tuple[bytes, bytes]], is_whole: bool = False) -> Program | None:
        """The rows of a program. None where a block ends the steps, unless they are `is_whole`."""
        node = self._root
        rows: list[int] = []
        reasons: list[str] = []
        distance, last = 0, -1
        distances = self._distances
        for chunk, advance in steps:
            if chunk:
                node = node.steps.get(chunk) or self._step(node, chunk)
            try:
                moved = distances[advance]
            except KeyError:
                moved = distances[advance] = self._distance(advance)
            if moved is None:
                if is_cut_short(advance) and not is_whole:
                    return None
                rows.append(distance | UNSUPPORTED)
                reasons.append(UNREADABLE)
                break
            if node.word != last and (moved or not advance):
                last = node.word
                rows.append(distance | last)
                if node.reason:
                    reasons.append(node.reason)
            distance += moved
            if distance > 0xFFFFFFFF:  # no function is that long
                break
        return Program(tuple(rows), tuple(reasons))

    def _distance(self, advance: bytes) -> int | None:
        """What an advance adds to the address; None when it is no advance."""
        if not advance:
            return 0
        if 0x40 <= advance[0] < 0x80:
            return (advance[0] & 0x3F) * self._code_factor
        return int.from_bytes(advance[1:], "little") * self._code_factor if advance[1:] else None

    def _node(self, state: State) -> _Node:
        node = self._nodes.get(state)
        if node is None:
            node = self._nodes[state] = _Node(state, self._is_signal)
        return node

    def _step(self, node: _Node, chunk: bytes) -> _Node:
        state = node.state
        for instruction in instructions(chunk):
            state = self._apply(state, instruction)
        self._steps += 1
        node.steps[chunk] = after = self._node(state)
        return after

    def _apply(self, state: State, instruction: bytes) -> State:
        code, rest = instruction[0], instruction[1:]
        if code == 0x0A:  # remember_state
            if state.depth >= MAX_DEPTH:
                return _undefined(state)
            return State(state.frame, Remembered(state.frame, state.remembered), state.depth + 1)
        if code == 0x0B:  # restore_state
            if state.remembered is None:
                return _undefined(state)
            frame, before = state.remembered
            return State(frame, before, state.depth - 1)
        if code == 0x0F:  # def_cfa_expression
            return state._replace(frame=state.frame._replace(cfa=rest[1:]))
        numbers = lebs(rest) if code not in (0x10, 0x16) else lebs(rest)[:1]
        if code >= 0x80:
            register = code & 0x3F
            if code >= 0xC0:
                return self._restored(state, register)
            return _with_register(state, register, Saved(unsigned_leb(rest) * self._data_factor))
        if code in (0x0C, 0x0D, 0x0E, 0x12, 0x13):
            return state._replace(frame=self._with_cfa(state.frame, code, numbers))
        if code in (0x00, 0x2E):  # nop, GNU_args_size
            return state
        register = unsigned_leb(numbers[0])
        if code == 0x06:  # restore_extended
            return self._restored(state, register)
        if code == 0x05:  # offset_extended
            return _with_register(
                state, register, Saved(unsigned_leb(numbers[1]) * self._data_factor)
            )
        if code == 0x11:  # offset_extended_sf
            return _with_register(
                state, register, Saved(signed_leb(numbers[1]) * self._data_factor)
            )
        if code == 0x10:  # expression
            return _with_register(state, register, Saved(rest[len(numbers[0]) + 1 :]))
        if code == 0x07:  # undefined
            return _with_register(state, register, None)
        if code == 0x08 and register != RETURN_ADDRESS:  # same_value
            return _with_register(state, register, UNCHANGED)
        return _with_register(state, register, ELSEWHERE)

    def _with_cfa(self, frame: Frame, code: int, numbers: list[bytes]) -> Frame:
        if code == 0x0C:  # def_cfa
            return frame._replace(cfa=(unsigned_leb(numbers[0]), unsigned_leb(numbers[1])))
        if code == 0x12:  # def_cfa_sf
            offset = signed_leb(numbers[1]) * self._data_factor
            return frame._replace(cfa=(unsigned_leb(numbers[0]), offset))
        if not isinstance(frame.cfa, tuple):
            return frame._replace(cfa=None)  # half of it would come from an expression
        register, offset = frame.cfa
        if code == 0x0D:  # def_cfa_register
            return frame._replace(cfa=(unsigned_leb(numbers[0]), offset))
        if code == 0x0E:  # def_cfa_offset
            return frame._replace(cfa=(register, unsigned_leb(numbers[0])))
        return frame._replace(cfa=(register, signed_leb(numbers[0]) * self._data_factor))

    def _restored(self, state: State, register: int) -> State:
        frame = self._initial.frame
        if register == RBP:
            return _with_register(state, register, frame.rbp)
        if register == RETURN_ADDRESS:
            return state._replace(frame=state.frame._replace(return_address=frame.return_address))
        return state


def _undefined(state: State) -> State:
    return state._replace(frame=state.frame._replace(cfa=None))


def _with_register(state: State, register: int, saved: Saved | None) -> State:
    """The rule of a register; None: undefined."""
    if register == RBP:  # undefined: a caller has no use for it, so any value does
        return state._replace(frame=state.frame._replace(rbp=saved or UNCHANGED))
    if register == RETURN_ADDRESS:
        if saved == Saved(-8):
            saved = UNCHANGED
        return state._replace(frame=state.frame._replace(return_address=saved))
    return state
