"""Python frames in place of the evaluator's in a native stack. Pure.

The kernel program has put marks where native addresses lie in the evaluator or in its glue
(bpf/python_events.h). One call of the evaluator ran one segment of Python frames: up to 3.10 a
single frame, from 3.11 on all that called one another without C code between them.
"""

from collections.abc import Callable, Iterable, Sequence

from node_agent.cpython.structs import (
    PYTHON_EVALUATOR_WORD,
    PYTHON_GLUE_WORD,
    PYTHON_SEGMENT_END,
)

MARKS = frozenset((PYTHON_EVALUATOR_WORD, PYTHON_GLUE_WORD))


def split_segments(words: Iterable[int]) -> list[list[int]]:
    """Ids of code objects, leaf first, as they were run by one call of the evaluator each."""
    segments: list[list[int]] = []
    running: list[int] = []
    for word in words:
        running.append(word & ~PYTHON_SEGMENT_END)
        if word & PYTHON_SEGMENT_END:
            segments.append(running)
            running = []
    if running:
        segments.append(running)
    return segments


def merge(
    words: Sequence[int],
    native: Sequence[bytes],
    segments: Sequence[Sequence[bytes]],
    is_complete: bool,
) -> list[bytes]:
    """Packed frames of a user stack, everything leaf first.

    `words` are the addresses and marks of the native stack, `native` the packed frame of each (of a
    mark: anything; fewer where the stack can't be believed to its end). Each segment takes the
    place of one mark of the evaluator, matched from the leaf: where calls and segments differ in
    number, it is mostly the root's side that has too many (a greenlet's parent, a call that is just
    being entered). `is_complete` says whether the stack reaches the entry point; where it doesn't,
    the segments left over belong behind its end, else the thread is about to leave them, at the
    leaf.
    """
    merged: list[bytes] = []
    position = 0
    if is_complete:
        position = max(0, len(segments) - words.count(PYTHON_EVALUATOR_WORD))
        for segment in segments[:position]:
            merged += segment
    for word, frame in zip(words, native, strict=False):
        if word == PYTHON_EVALUATOR_WORD:
            if position < len(segments):
                merged += segments[position]
                position += 1
        elif word != PYTHON_GLUE_WORD:
            merged.append(frame)
    for segment in segments[position:]:
        merged += segment
    return merged


def leave_out_trampolines(
    frames: Sequence[bytes], is_trampoline: Callable[[bytes, bytes], bool]
) -> list[bytes]:
    """`frames` (leaf first) without those that `is_trampoline` for the frame before them: under
    `-X perf` a function runs in a call of the evaluator by code that bears its name."""
    kept = list(frames[:1])
    for frame in frames[1:]:
        if not is_trampoline(frame, kept[-1]):
            kept.append(frame)
    return kept
