"""What is said about frames that have no name, and stacks that had no room."""

from pathlib import Path

import pytest

from node_agent.commands.record import describe
from node_agent.record import Recording
from node_agent.record.advice import advice


@pytest.mark.parametrize(
    ("unnamed", "words"),
    [
        ({"node": 40}, ("40.0 %", "(node)", "--perf-basic-prof --interpreted-frames-native-stack")),
        ({"java": 30}, ("30.0 %", "-XX:+PreserveFramePointer", "jcmd PID Compiler.perfmap")),
        ({"python3.12": 2}, ("python3 -X perf",)),
        ({"beam.smp": 5, "node": 9}, ("14.0 %", "(node, beam.smp)", "/tmp/perf-PID.map")),
    ],
)
def test_a_runtime_without_names_is_told_its_switch(
    unnamed: dict[str, int], words: tuple[str, ...]
) -> None:
    told = "\n".join(advice(100, unnamed, {"complete": 100}))
    for word in words:
        assert word in told


def test_no_room_says_what_gives_it() -> None:
    (line,) = advice(100, {}, {"complete": 80, "no_room": 20})
    assert "20.0 % of stacks" in line
    assert "--pid" in line


@pytest.mark.parametrize(
    ("samples", "unnamed", "ends"),
    [(0, {}, {}), (1000, {"node": 9}, {"complete": 995, "no_room": 5})],
)
def test_what_nobody_looks_at_is_not_told(
    samples: int, unnamed: dict[str, int], ends: dict[str, int]
) -> None:
    assert advice(samples, unnamed, ends) == []


def test_the_summary_is_one_line() -> None:
    done = Recording(Path("a.folded"), 10, {"ring_full": 2}, 5.0, {"complete": 9, "no_room": 1}, {})
    assert describe(done) == (
        "a.folded: 10 samples in 5.0 s, 90.0 % of stacks whole, lost: 2 ring_full"
    )
