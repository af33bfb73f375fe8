"""Stacks of real programs without frame pointers are whole. What is asserted are shares and chains
of functions, never times."""

from typing import Any

import pytest

from node_agent.collectors.stacks import StackEnd
from node_agent.kernel.structs import MAX_STACK_DEPTH

# Until all programs were sampled often enough: see conftest.py, whose limits say what is missing.
pytestmark = pytest.mark.timeout(2000)
Seen = Any  # of conftest.py


@pytest.mark.parametrize(
    "name", ["pie", "fixed", "static", "spie", "deleted", "replaced", "inside", "execed", "maps"]
)
def test_stacks_reach_from_the_entry_point_to_the_leaf(seen: Seen, name: str) -> None:
    assert seen.share(name, StackEnd.COMPLETE) >= 0.98, seen.rows[name]
    calls = ("main", "outer", "work") if name == "maps" else ("main", "outer", "inner", "work")
    assert seen.chain_share(name, *calls) >= 0.95, seen.rows[name]
    assert all(row.frames[0] == "_start" for row in seen.rows[name] if row.end is StackEnd.COMPLETE)


@pytest.mark.parametrize("name", ["musl", "smusl"])
def test_programs_of_musl_are_whole(seen: Seen, name: str) -> None:
    """Their C library has no unwind information."""
    assert seen.share(name, StackEnd.COMPLETE) >= 0.98, seen.rows[name]
    assert seen.chain_share(name, "main", "outer", "inner", "work") >= 0.95, seen.rows[name]


def test_a_library_that_is_loaded_later_is_unwound(seen: Seen) -> None:
    assert seen.share("late", StackEnd.COMPLETE) >= 0.98, seen.rows["late"]
    assert seen.chain_share("late", "main", "outer", "in_library", "work") >= 0.95


def test_forks_without_exec_are_unwound_however_short_they_live(seen: Seen) -> None:
    assert seen.share("forks", StackEnd.COMPLETE) >= 0.95, seen.rows["forks"]
    in_child = seen.chain_share("forks", "main", "outer", "in_child", "work")
    in_parent = seen.chain_share("forks", "main", "outer", "in_parent", "work")
    assert in_child > 0.1
    assert in_parent > 0.1
    assert in_child + in_parent >= 0.9


def test_programs_that_live_for_half_a_second_are_unwound_or_counted(seen: Seen) -> None:
    rows = seen.rows["short"]
    whole, unknown = (seen.share("short", end) for end in (StackEnd.COMPLETE, StackEnd.NO_MAPPING))
    assert whole > 0, rows
    assert whole + unknown > 0.95, rows
    assert all("_start" in row.frames for row in rows if row.end is StackEnd.COMPLETE)


def test_the_vdso_is_unwound(seen: Seen) -> None:
    assert seen.share("clocks", StackEnd.COMPLETE) >= 0.98, seen.rows["clocks"]
    in_vdso = [row for row in seen.rows["clocks"] if "[vdso]" in row.frames]
    assert sum(row.samples for row in in_vdso) > 0.2 * seen.samples("clocks")
    assert all("read_clock" in row.frames for row in in_vdso if row.end is StackEnd.COMPLETE)


def test_a_signal_handler_stands_on_what_it_interrupted(seen: Seen) -> None:
    assert seen.share("signals", StackEnd.COMPLETE) >= 0.98, seen.rows["signals"]
    calls = ("handle", "outer", "in_handler", "work")
    in_handler = [
        row.frames
        for row in seen.rows["signals"]
        if any(row.frames[at : at + 4] == calls for at in range(len(row.frames)))
    ]
    assert seen.chain_share("signals", *calls) > 0.3
    for frames in in_handler:
        before = frames[: frames.index("handle") - 1]  # without the return from the handler
        assert before[-1] in ("interrupted", "outer", "main"), frames
        assert before[0] == "_start"


def test_threads_are_unwound_to_their_beginning(seen: Seen) -> None:
    assert seen.share("threads", StackEnd.COMPLETE) >= 0.98, seen.rows["threads"]
    assert seen.chain_share("threads", "in_thread", "outer", "work") >= 0.95


def test_samples_of_kernel_code_have_the_users_part(seen: Seen) -> None:
    assert seen.share("copies", StackEnd.COMPLETE) >= 0.98, seen.rows["copies"]
    in_kernel = [row for row in seen.rows["copies"] if "do_syscall_64" in row.frames]
    assert sum(row.samples for row in in_kernel) > 0.5 * seen.samples("copies")
    whole = [row for row in in_kernel if row.end is StackEnd.COMPLETE]
    assert all(row.frames[0] == "_start" for row in whole)
    with_copy = sum(row.samples for row in whole if pair_of_main(row.frames) == ("main", "copy"))
    assert with_copy >= 0.95 * sum(row.samples for row in whole)


def pair_of_main(frames: tuple[str, ...]) -> tuple[str, ...]:
    at = frames.index("main") if "main" in frames else 0
    return frames[at : at + 2]


def test_go_is_unwound_by_its_frame_pointers(seen: Seen) -> None:
    assert seen.share("go", StackEnd.COMPLETE) >= 0.95, seen.rows["go"]


def test_what_is_too_deep_is_cut_and_said(seen: Seen) -> None:
    assert seen.share("deep", StackEnd.TRUNCATED) >= 0.98, seen.rows["deep"]
    depths = {
        sum(frame in ("descend", "work") for frame in row.frames) for row in seen.rows["deep"]
    }
    assert MAX_STACK_DEPTH in depths


def test_nothing_was_lost_on_the_way(seen: Seen) -> None:
    status = seen.unwinder.status()
    assert status["error"] == ""
    assert not {"map_error", "system_error", "rows_full", "mappings_full"} & status["lost"].keys()
    assert status["row_bytes"] > 20_000
    assert status["modules"]["loaded"] >= 10
    assert status["map_bytes"] <= 10 << 20
