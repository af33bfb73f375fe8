"""Folded stacks ("collapsed", as flamegraph.pl reads them): one `root;...;leaf count` a line.

Format: https://github.com/brendangregg/FlameGraph#2-fold-stacks. It has no escapes of its own, and
its readers take a number before the count for a second count (differential flamegraphs): `worker 7`
would become `worker`. So what has a meaning in a name is written as in URLs, `%` and the two hex
digits of each UTF-8 byte, and nothing else is:

- `;`, line breaks, other control characters and Unicode's line separators;
- the blank before a number that ends the name, and blanks at either end;
- `%` itself, where two hex digits follow.

`urllib.parse.unquote` of each frame gives the names back, exactly; readers that know nothing of it
show `worker%207`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote

from wire.pprof import Frame

_MEANT = re.compile(
    r"[;\x00-\x1f\x7f-\x9f\u2028\u2029]"
    r"|\s(?=\d+(?:\.\d*)?\Z)|\A\s+|\s+\Z"
    r"|%(?=[0-9a-fA-F]{2})"
)


def escape(name: str) -> str:
    """A name as it stands in a folded line."""
    return _MEANT.sub(lambda found: quote(found.group(), safe=""), name)


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
                    escape(function) or "[unknown]" for function in functions
                )
            parts.append(name)
        line = ";".join(parts)
        counts[line] = counts.get(line, 0) + count
    return "".join(f"{line} {count}\n" for line, count in sorted(counts.items()))
