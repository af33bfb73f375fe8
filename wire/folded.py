"""Folded stacks ("collapsed", as flamegraph.pl reads them): one `root;...;leaf count` a line.

Format: https://github.com/brendangregg/FlameGraph#2-fold-stacks. It has no escapes, so `;` inside
a name becomes `:` and a line break a space. What a terminal would obey is escaped.
"""

from collections.abc import Iterable, Mapping, Sequence

from wire.pprof import Frame
from wire.terminal import printable

_ESCAPES = str.maketrans({";": ":", "\n": " ", "\r": " "})


def encode_folded(stacks: Iterable[tuple[Sequence[Frame], int, Mapping[str, str]]]) -> str:
    """Text of `stacks` (frames root first, count, labels), equal lines merged, sorted by name.
    Inlined functions stand as frames of their own.

    Labels have no place in this format; a caller that wants them visible puts them in a frame.
    """
    names: dict[Frame, str] = {}
    counts: dict[str, int] = {}
    for frames, count, _labels in stacks:
        parts = []
        for frame in frames:
            name = names.get(frame)
            if name is None:
                functions = (*(line.function for line in frame.callers), frame.function)
                name = names[frame] = ";".join(
                    printable(function.translate(_ESCAPES)) or "[unknown]" for function in functions
                )
            parts.append(name)
        line = ";".join(parts)
        counts[line] = counts.get(line, 0) + count
    return "".join(f"{line} {count}\n" for line, count in sorted(counts.items()))
