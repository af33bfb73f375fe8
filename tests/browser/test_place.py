"""A frame that gets its name while somebody looks at it keeps its place on the page."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

Run = Callable[[str], Awaitable[Any]]


def tree(*frames: tuple[str, str, int, int, int]) -> dict[str, Any]:
    """An answer of frames (name, module, parent, level, total), breadth first."""
    names, modules, parents, levels, totals = (list(column) for column in zip(*frames, strict=True))
    strings = sorted({*names, *modules})
    functions = {
        "name": [strings.index(name) for name in names],
        "module": [strings.index(module) for module in modules],
        "kind": [0] * len(frames),
    }
    nodes = {
        "function": list(range(len(frames))),
        "parent": parents,
        "total": totals,
        "self": [0] * len(frames),
        "level": levels,
    }
    return {
        "version": 1,
        "kinds": ["native"],
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
