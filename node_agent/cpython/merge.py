"""Python frames in place of the evaluator's in a native stack. Pure.

The kernel program has put marks where native addresses lie in the evaluator or in its glue
(bpf/python_events.h). One call of the evaluator ran one segment of Python frames: up to 3.10 a
single frame, from 3.11 on all that called one another without C code between them.
"""

from collections.abc import Iterable, Sequence

from node_agent.cpython.structs import (
    PYTHON_EVALUATOR_WORD,
    PYTHON_GLUE_WORD,
    PYTHON_SEGMENT_END,
)


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
    native: Sequence[int], segments: Sequence[Sequence[bytes]], is_complete: bool
) -> list[int | bytes]:
    """`native` (addresses and marks) with each segment (packed frames) in the place of one mark of
    the evaluator; everything leaf first.

    Matched from the leaf: where calls and segments differ in number, it is mostly the root's side
    that has too many (a greenlet's parent, the call that is just being entered). `is_complete` says
    whether `native` reaches the entry point; where it doesn't, the segments left over belong behind
    its end, else the thread is about to leave them, at the leaf.
    """
    marks = sum(1 for word in native if word == PYTHON_EVALUATOR_WORD)
    merged: list[int | bytes] = []
    position = 0
    if is_complete and len(segments) > marks:
        position = len(segments) - marks
        for segment in segments[:position]:
            merged += segment
    for word in native:
        if word == PYTHON_EVALUATOR_WORD:
            if position < len(segments):
                merged += segments[position]
                position += 1
        elif word != PYTHON_GLUE_WORD:
            merged.append(word)
    for segment in segments[position:]:
        merged += segment
    return merged
