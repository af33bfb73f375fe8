"""Python frames in place of the evaluator's: tables of native stacks and segments."""

import pytest

from node_agent.cpython.merge import leave_out_trampolines, merge, split_segments
from node_agent.cpython.structs import PYTHON_SEGMENT_END

E, G = 1, 2  # marks: evaluator, glue
END = PYTHON_SEGMENT_END
LEAF, SORT, MAIN, START = 0x1000, 0x2000, 0x3000, 0x4000
NATIVE = {LEAF: b"leaf", SORT: b"sort", MAIN: b"main", START: b"_start"}


@pytest.mark.parametrize(
    ("words", "segments"),
    [
        ((), []),
        ((1, 2, 3 | END), [[1, 2, 3]]),
        ((1 | END, 2 | END, 3 | END), [[1], [2], [3]]),
        ((1, 2 | END, 3, 4 | END), [[1, 2], [3, 4]]),
        ((1, 2 | END, 3), [[1, 2], [3]]),  # cut short: what was read of the last segment
    ],
)
def test_segments_end_where_the_evaluator_was_entered(
    words: tuple[int, ...], segments: list[list[int]]
) -> None:
    assert split_segments(words) == segments


@pytest.mark.parametrize(
    ("words", "segments", "is_complete", "expected"),
    [
        # 3.11 and later: one call of the evaluator runs the whole chain
        ((E, MAIN, START), ["ab"], True, "a b main _start"),
        # C code between: the callback's frames stand below it, the caller's above
        ((LEAF, E, SORT, E, MAIN), ["k", "ab"], True, "leaf k sort a b main"),
        # up to 3.10: a call for each function, with glue between
        ((E, G, G, E, G, E, MAIN), ["a", "b", "c"], True, "a b c main"),
        ((E, G, SORT, E, G, E, MAIN), ["a", "b", "c"], True, "a sort b c main"),
        # entering: the innermost call has no frame yet, the chain stays whole
        ((E, E, MAIN), ["ab"], True, "a b main"),
        # leaving: a segment whose call is gone stands at the leaf
        ((LEAF, E, MAIN), ["a", "b"], True, "a leaf b main"),
        # the native stack ends early: the rest of the Python frames stands above it
        ((LEAF, E, SORT), ["a", "bc", "d"], False, "leaf a sort b c d"),
        ((LEAF,), ["ab"], False, "leaf a b"),
        # no Python frame for the outer calls (a greenlet's parent): nothing to show for them
        ((E, SORT, E, MAIN), ["a"], True, "a sort main"),
        ((), ["ab", "c"], False, "a b c"),
    ],
)
def test_segments_take_the_place_of_the_evaluator(
    words: tuple[int, ...], segments: list[str], is_complete: bool, expected: str
) -> None:
    native = [NATIVE.get(word, b"") for word in words]
    python = [[letter.encode() for letter in segment] for segment in segments]

    merged = merge(words, native, python, is_complete)

    assert b" ".join(merged).decode() == expected


def test_native_frames_that_are_not_believed_are_left_out() -> None:
    assert merge((LEAF, E, SORT, MAIN), [b"leaf", b""], [[b"a"], [b"b"]], False) == [
        b"leaf",
        b"a",
        b"b",
    ]


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ("", ""),
        ("a A m", "a m"),
        ("a A call a A b B m", "a call a b m"),  # recursion through C code, then the caller
        ("A b B", "A b"),  # about to enter the evaluator: there is no Python frame yet
        ("a c A m", "a c A m"),  # not the code that runs `c`
    ],
)
def test_trampolines_are_left_out_behind_the_function_that_they_run(
    frames: str, expected: str
) -> None:
    left = leave_out_trampolines(
        [frame.encode() for frame in frames.split()],
        lambda frame, function: frame != function and frame.lower() == function,
    )

    assert b" ".join(left).decode() == expected
