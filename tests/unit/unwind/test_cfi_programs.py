"""Call frame instructions to rows."""

import pytest

from node_agent.unwind.cfi_programs import MAX_DEPTH, MAX_PROGRAM_BYTES, Interpreter
from node_agent.unwind.rules import END, SCRATCH, SIGNAL, UNSUPPORTED, Rule, word

INITIAL = b"\x0c\x07\x08\x90\x01"  # CFA = rsp + 8, return address at CFA - 8
ENTERED = word(Rule.CFA_RSP, 1)
PUSHED = word(Rule.CFA_RSP, 2, -2)

PROGRAMS = {
    "nothing": (b"", [(0, ENTERED)]),
    "padding only": (b"\0\0\0", [(0, ENTERED)]),
    "push of rbp": (b"\x41\x0e\x10\x86\x02", [(0, ENTERED), (1, PUSHED)]),
    "frame pointer": (
        b"\x41\x0e\x10\x86\x02\x43\x0d\x06\x02\x80\x0c\x07\x08\x00",
        [
            (0, ENTERED),
            (1, PUSHED),
            (4, word(Rule.CFA_RBP, 2, -2)),
            (132, word(Rule.CFA_RSP, 1, -2)),
        ],
    ),
    "rbp restored": (
        b"\x41\x0e\x10\x86\x02\x04\x00\x00\x01\x00\xc6\x0e\x08",
        [(0, ENTERED), (1, PUSHED), (0x10001, ENTERED)],
    ),
    "a state remembered and restored": (
        b"\x41\x0e\x10\x86\x02\x0a\x42\x0e\x08\xc6\x03\x00\x01\x0b",
        [(0, ENTERED), (1, PUSHED), (3, ENTERED), (259, PUSHED)],
    ),
    "advances of nothing": (b"\x40\x0e\x10\x40\x0e\x18\x41", [(0, word(Rule.CFA_RSP, 3))]),
    "the same again": (b"\x41\x83\x03\x42\x2e\x10\x43\x0e\x08", [(0, ENTERED)]),
    "other registers": (b"\x83\x02\x05\x0c\x03\x09\x00\x01\x08\x03\x06\x0c", [(0, ENTERED)]),
    "undefined return address": (b"\x07\x10", [(0, END)]),
    "signed offsets": (b"\x12\x07\x7e\x11\x06\x02", [(0, word(Rule.CFA_RSP, 2, -2))]),
    "a place in memory below rsp": (
        b"\x0f\x06\x77\x98\x04\x06\x23\x08\x86\x02",
        [(0, word(Rule.CFA_RSP_DEREF, 67, 1 | -2 << 3))],
    ),
    "a realigned stack": (
        b"\x10\x06\x02\x76\x00\x0f\x03\x76\x78\x06",
        [(0, word(Rule.CFA_RBP_DEREF, -1))],
    ),
    "a linkage table": (
        b"\x0f\x0b\x77\x08\x80\x00\x3f\x1a\x3b\x2a\x33\x24\x22",
        [(0, word(Rule.CFA_PLT))],
    ),
    "an expression that is a sum": (b"\x0f\x02\x77\x10", [(0, word(Rule.CFA_RSP, 2))]),
    "longest offsets": (
        b"\x0e\xf8\xff\x0f\x86\x80\x01",
        [(0, word(Rule.CFA_RSP, 0x7FFF, -0x80))],
    ),
    # and what no row can hold
    "CFA in rax": (b"\x41\x0d\x00\x41\x0d\x07", [(0, ENTERED), (1, SCRATCH), (2, ENTERED)]),
    "CFA too far": (b"\x0e\x80\x80\x10", [(0, UNSUPPORTED)]),
    "CFA not a multiple of 8": (b"\x0e\x0c", [(0, UNSUPPORTED)]),
    "rbp too far": (b"\x86\x81\x01", [(0, UNSUPPORTED)]),
    "rbp in a register": (b"\x09\x06\x03", [(0, UNSUPPORTED)]),
    "half an expression": (b"\x0f\x03\x76\x78\x06\x0e\x10", [(0, UNSUPPORTED)]),
    "another linkage table": (
        b"\x0f\x0b\x77\x08\x80\x00\x3f\x1a\x35\x2a\x33\x24\x22",
        [(0, UNSUPPORTED)],
    ),
    "return address elsewhere": (b"\x90\x03", [(0, UNSUPPORTED)]),
    # and what is not right
    "unknown instruction": (b"\x41\x0e\x10\x3f\x41\x0e\x08", [(0, ENTERED), (1, UNSUPPORTED)]),
    "cut in an operand": (b"\x41\x0e", [(0, ENTERED), (1, UNSUPPORTED)]),
    "cut in an expression": (b"\x41\x0f\x0b\x77", [(0, ENTERED), (1, UNSUPPORTED)]),
    "restored without a state": (b"\x0b", [(0, UNSUPPORTED)]),
    "too many states": (b"\x0a" * (MAX_DEPTH + 1), [(0, UNSUPPORTED)]),
    "too long": (bytes(MAX_PROGRAM_BYTES + 1), [(0, UNSUPPORTED)]),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_rows_of_a_program(name: str) -> None:
    program, expected = PROGRAMS[name]
    made = Interpreter(1, -8, INITIAL).program(program)
    assert list(made.rows) == [distance | rule for distance, rule in expected]
    unsupported = sum(rule in (SCRATCH, UNSUPPORTED) for _, rule in expected)
    assert len(made.reasons) == unsupported
    assert all(made.reasons)


def test_a_signal_trampoline_has_its_own_rule_whatever_its_expressions() -> None:
    made = Interpreter(1, -8, INITIAL, is_signal=True).program(b"\x0f\x04\x77\xa0\x01\x06\x41\x00")
    assert list(made.rows) == [SIGNAL]


def test_factors_multiply() -> None:
    made = Interpreter(4, -4, b"\x0c\x07\x08\x90\x02").program(b"\x41\x0e\x10\x86\x04")
    assert list(made.rows) == [ENTERED, 4 | PUSHED]


@pytest.mark.parametrize("initial", [b"\x0c\x07", b"\x41\x0c\x07\x08", b"\x3f", b""])
def test_without_a_beginning_every_row_is_unsupported(initial: bytes) -> None:
    assert list(Interpreter(1, -8, initial).program(b"").rows) == [UNSUPPORTED]


def test_what_is_remembered_stays_small() -> None:
    interpreter = Interpreter(1, -8, INITIAL)
    for number in range(17_000):
        offset = bytes((0x80 | number & 0x7F, number >> 7 & 0x7F | 0x80, 1 + (number >> 14)))
        made = interpreter.program(b"\x41\x0e" + offset + b"\x41\x0e\x08")
        assert made.rows[0] == ENTERED and made.rows[-1] == 2 | ENTERED
    assert len(interpreter.programs) <= 1 << 14
    assert len(interpreter._nodes) <= 1 << 15
