"""A frame that gets its name while somebody looks at it keeps its place on the page."""

import json
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

Run = Callable[[str], Awaitable[Any]]


def tree(*frames: tuple[str, str, int, int, int]) -> dict[str, Any]:
    """An answer of frames (name, module, parent, level, total), breadth first."""
    names, modules, parents, levels, totals = (list(column) for column in zip(*frames, strict=True))
    builds = ["ab" if "+0x" in name else "" for name in names]
    strings = sorted({*names, *modules, *builds, ""})
    count = len(frames)
    texts = {"name": names, "module": modules, "build": builds, "file": [""] * count}
    functions = {
        **{key: [strings.index(text) for text in column] for key, column in texts.items()},
        "id": [zlib.crc32(f"{name}/{module}".encode()) for name, module, *_ in frames],
        "kind": [0] * count,
        "group": [-1] * count,
        "members": [0] * count,
        "self": [0] * count,
        "total": totals,
        "places": [1] * count,
        **{f"{key}_{end}": [0] * count for key in ("self", "total") for end in ("low", "high")},
    }
    nodes = {
        "function": list(range(count)),
        "parent": parents,
        "total": totals,
        "level": levels,
        "self": [0] * count,
        "low": [0] * count,
        "high": [0] * count,
        "file": [-1] * count,
        "line": [0] * count,
    }
    return {
        "version": 2,
        "kinds": ["native"],
        "kind_shares": [],
        "functions_found": count,
        "other_ns": 0,
        "strings": strings,
        "functions": functions,
        "nodes": nodes,
    }


# all ─ web ─ app+0x10 ─ libc+0x50 ─ app+0x20 ─ read, and beside app+0x20 are app+0x30 and work
UNNAMED = tree(
    ("all", "", -1, 0, 100),
    ("web", "", 0, 1, 100),
    ("app+0x10", "app", 1, 2, 100),
    ("libc+0x50", "libc", 2, 3, 100),
    ("app+0x20", "app", 3, 4, 40),
    ("app+0x30", "app", 3, 4, 30),
    ("work", "app", 3, 4, 20),
    ("read", "libc", 4, 5, 30),
)
# The same with names, except for libc's; a new one is beside them.
NAMED = tree(
    ("all", "", -1, 0, 120),
    ("web", "", 0, 1, 120),
    ("main", "app", 1, 2, 90),
    ("other", "app", 1, 2, 30),
    ("libc+0x50", "libc", 2, 3, 90),
    ("idle", "app", 4, 4, 30),
    ("load", "app", 4, 4, 35),
    ("work", "app", 4, 4, 25),
    ("read", "libc", 6, 5, 30),
)


@pytest.mark.parametrize(
    ("frame", "then", "is_sure"),
    [(3, 4, True), (4, 6, True), (7, 8, True), (6, 7, True), (2, 2, True), (5, 4, False)],
    ids=[
        "by the next",
        "by what it calls",
        "below it",
        "had its name",
        "by its size",
        "one of two",
    ],
)
async def test_a_place_is_kept_when_its_frames_get_their_names(
    run: Run, frame: int, then: int, is_sure: bool
) -> None:
    # Where it can't be told which name is the frame's, its caller is shown, and the link stays.
    found = await run(
        f"""const {{ decode }} = await import("/static/js/model.js");
        const {{ follow, placeOf }} = await import("/static/js/place.js");
        const [before, after] = [decode({json.dumps(UNNAMED)}), decode({json.dumps(NAMED)})];
        const {{ frame, place }} = follow(after, placeOf(before, {frame}));
        return {{ frame, isLinked: place.at(-1).path === after.pathHash[frame] }};"""
    )
    assert found == {"frame": then, "isLinked": is_sure}
