"""Rows of code that nothing describes: the stack's height is followed through the instructions.

C libraries such as musl, and functions written in assembly, come without unwind information. What
compilers make of a function is regular enough: it begins with the return address on the stack, and
changes the height by pushes, pops and constants only, or sets rbp first. Where that does not hold,
there is no row.
"""

from array import array
from collections.abc import Collection

from node_agent.unwind.heights import ENTRY, START, Height, after, word_of
from node_agent.unwind.instructions import Effect, Instruction, decode
from node_agent.unwind.rules import SIGNAL

_RT_SIGRETURN = b"\x48\xc7\xc0\x0f\x00\x00\x00\x0f\x05"  # mov $15, %rax; syscall
_ENDBR64 = b"\xf3\x0f\x1e\xfa"
_KEPT = (3, 5, 12, 13, 14, 15)  # registers that functions save
_RETURNS_TO = 1  # the kernel side looks a byte before a return address
_LAST = (Effect.END, Effect.JUMP, Effect.JUMP_ELSEWHERE)


def follow(code: bytes, address: int, starts: Collection[int], entry: int) -> list[int]:
    """Rows (pc | word, ascending) of the `code` at `address`. `starts` are addresses of functions,
    more are found where they are called or their address is taken; `entry` is where the program
    begins."""
    decoded: dict[int, Instruction | None] = {}
    first = _Walk(code, {start - address for start in starts}, entry - address, decoded)
    first.run()
    # The second time every function that is called is known: some calls don't return, and then the
    # next function must not be taken for what follows.
    second = _Walk(code, first.starts, entry - address, decoded)
    second.run()
    return second.rows(address)


class _Walk:
    """Follows the flow of control from all functions; offsets are into `code`. `decoded` are the
    instructions that were decoded before, and those that are now."""

    def __init__(
        self,
        code: bytes,
        starts: set[int],
        entry: int,
        decoded: "dict[int, Instruction | None]",
    ) -> None:
        self.starts = {start for start in starts if 0 <= start < len(code)}
        self._code = code
        self._entry = entry
        # What holds at each instruction: 0 where none was seen, else an index of `_heights`.
        self._marks = array("H", bytes(2 * len(code)))
        self._stops = bytearray(len(code) + 1)  # 1 where there is a mark or the end of a flow
        self._decoded = decoded
        self._heights: list[Height | None] = [None, None, START]
        self._numbers: dict[Height | None, int] = {None: 1, START: 2}
        self._ways: list[tuple[int, Height | None]] = []  # still to be followed
        self._ends: dict[int, tuple[Effect, Height | None]] = {}  # where a flow ends, and how

    def run(self) -> None:
        """Follow everything."""
        for start in sorted(self.starts, reverse=True):
            self._ways.append((start, START))
        if 0 <= self._entry < len(self._code):
            self._ways.append((self._entry, ENTRY))
        self._follow_ways()
        # Beginnings that only pointers lead to come first: jumps from there tell the heights of
        # more code than the guesses about what is left.
        self._follow_rest(beginnings_only=True)
        self._follow_rest(beginnings_only=False)

    def rows(self, address: int) -> list[int]:
        """Rows of what has been followed."""
        rows: list[int] = []
        last, signal_end = -1, 0
        words = [word_of(height) for height in self._heights]
        for at, mark in enumerate(self._marks):
            if not mark or at < signal_end:
                continue
            pc, now = address + at, words[mark]
            if self._code.startswith(_RT_SIGRETURN, at):
                pc, now = address + max(at - _RETURNS_TO, 0), SIGNAL
                signal_end = at + len(_RT_SIGRETURN)
            if now == last:
                continue
            last = now
            if rows and rows[-1] & 0xFFFFFFFF >= pc:
                rows.pop()
            rows.append(pc | now)
        return rows

    def _follow_ways(self) -> None:
        ways, marks, size = self._ways, self._marks, len(self._code)
        while ways:
            at, height = ways.pop()
            if 0 <= at < size and not marks[at]:
                self._follow(at, height)

    def _follow(self, at: int, height: Height | None) -> None:
        """From `at` on, until nothing follows or it has been followed before."""
        code, marks, stops, ways = self._code, self._marks, self._stops, self._ways
        number = self._number(height)
        is_first = True
        while at < len(code) and not marks[at]:
            if not is_first and at in self.starts:
                return
            is_first = False
            instruction = self._decode(at)
            marks[at] = number
            stops[at] = 1
            if instruction is None:
                marks[at] = 1
                self._end(at + 1, Effect.LOSE, None)
                return
            at += instruction.size
            effect, value = instruction.effect, instruction.value
            if effect is Effect.NONE or effect is Effect.PADDING:
                continue
            if effect is Effect.ADDRESS or (effect is Effect.CALL and value):
                if 0 <= at + value < len(code):
                    self.starts.add(at + value)
                if effect is Effect.CALL and self._begins_after(at):
                    self._end(at, Effect.END, None)
                    return
            elif effect is Effect.BRANCH:
                ways.append((at + value, height))
            elif effect in _LAST:
                if effect is Effect.JUMP:
                    ways.append((at + value, height))
                self._end(at, effect, height)
                return
            else:
                height = after(height, effect, value)
                number = self._number(height)

    def _follow_rest(self, beginnings_only: bool) -> None:
        """Code that only a table or a pointer leads to, in the order of addresses."""
        code, marks, stops = self._code, self._marks, self._stops
        at = 0
        switched: Height | None = None  # at the jump by a table that came last
        effect, height = Effect.END, None
        while at < len(code):
            if at in self.starts:
                switched = None
            if at in self._ends:
                effect, height = self._ends[at]
                if effect is Effect.JUMP_ELSEWHERE:
                    switched = height
            instruction = self._decode(at) if not marks[at] else None
            if instruction is None:  # or none can be read there
                at = stops.find(1, at + 1)
                if at < 0:
                    return
                continue
            if instruction.effect is Effect.PADDING:
                at += instruction.size
                continue
            if at % 16 == 0 and self._is_beginning(at):
                self._ways.append((at, START))
            elif beginnings_only:
                at += instruction.size
                continue
            elif effect is Effect.JUMP and height is not None:
                self._ways.append((at, height))
            else:
                is_apart = switched is None or (at % 16 == 0 and effect is Effect.END)
                self._ways.append((at, START if is_apart else switched))
            self._follow_ways()

    def _end(self, at: int, effect: Effect, height: Height | None) -> None:
        """A flow ends before `at`."""
        self._ends[at] = effect, height
        self._stops[at] = 1

    def _decode(self, at: int) -> Instruction | None:
        try:
            return self._decoded[at]
        except KeyError:
            found = self._decoded[at] = decode(self._code, at)
            return found

    def _begins_after(self, at: int) -> bool:
        """Whether a function seems to begin behind a call that ends at `at`: the call never
        returns then."""
        while (padding := self._decode(at)) and padding.effect is Effect.PADDING:
            at += padding.size
        return at % 16 == 0 and self._is_beginning(at)

    def _is_beginning(self, at: int) -> bool:
        """Whether a function could begin at `at`, by its first instruction."""
        if self._code.startswith(_ENDBR64, at):
            return True
        instruction = self._decode(at)
        if instruction is None:
            return False
        if instruction.effect is Effect.PUSH:
            return instruction.value in _KEPT
        return instruction.effect is Effect.MOVE and instruction.value < 0

    def _number(self, height: Height | None) -> int:
        number = self._numbers.get(height)
        if number is None:
            if len(self._heights) > 0xFFFF:
                return 1
            number = self._numbers[height] = len(self._heights)
            self._heights.append(height)
        return number
