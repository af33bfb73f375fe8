"""What the sampler warns of: its own cost and the limits of the units."""

import io
from pathlib import Path

import pytest

from aggregator.alerts.rules import OverheadRule
from node_agent.log import Log
from node_agent.overhead.unit_limits import UnitState
from node_agent.sampler.events import Events
from node_agent.sampler.warnings import (
    WARN_CPU_PERCENT,
    WARN_MEMORY_BYTES,
    WINDOW_S,
    OverheadWarnings,
    UnitWarnings,
)
from wire.schema import Overhead

MIB = 1 << 20


def cost(percent: float, mib: int) -> Overhead:
    return Overhead(0, 0, 0, 0, mib * MIB, 12 * MIB, percent, 1.5)


def test_over_one_percent_or_fifty_mebibytes_is_warned_of_until_it_is_over() -> None:
    stream = io.StringIO()
    warnings = OverheadWarnings(Log("run", stream))

    warnings.note(cost(0.9, 50), 60, 60)
    assert stream.getvalue() == ""
    warnings.note(cost(1.34, 40), 120, 60)
    warnings.note(cost(0.5, 51), 170, 50)
    warnings.note(cost(0.5, 40), 250, 80)

    lines = stream.getvalue().splitlines()
    assert [line.split(" words=")[0].split("level=")[1] for line in lines] == [
        "warning event=overhead",
        "warning event=memory",
        "info event=overhead_over",
        "info event=memory_over",
    ]
    first, second = lines[:2]
    assert first.endswith(" cpu_percent=1.34 limit=1 user_percent_of_core=1.5")
    assert second.endswith(f" memory_bytes={51 * MIB} limit={50 * MIB} map_bytes={12 * MIB}")


def warned_after(costs: list[float], interval_s: float = 10) -> int | None:
    """The number of intervals with these costs after which the log has a warning, or None."""
    stream = io.StringIO()
    warnings = OverheadWarnings(Log("run", stream))
    for number, percent in enumerate(costs, 1):
        warnings.note(cost(percent, 40), number * interval_s, interval_s)
        if "event=overhead" in stream.getvalue():
            return number
    return None


@pytest.mark.parametrize(
    ("costs", "warned"),
    [
        ([1.2, *[0.2] * 20], None),  # a quiet host, whose agent reads its first programs
        ([5.0, *[0.1] * 20], None),
        ([6.5], 1),  # a whole minute's allowance is gone
        ([3.0] * 10, 3),
        ([1.1] * 10, 6),
        ([*[0.2] * 100, 1.2, *[0.2] * 10], None),  # a large file later on
        ([*[0.2] * 100, *[1.2] * 10], 105),
        ([1.0] * 100, None),
    ],
)
def test_a_minute_over_one_percent_is_warned_of_and_no_short_start(
    costs: list[float], warned: int | None
) -> None:
    assert warned_after(costs) == warned


def test_an_interval_longer_than_a_minute_is_judged_by_itself() -> None:
    assert warned_after([0.5, 1.1], interval_s=120) == 2


def test_agent_and_centre_judge_by_the_same_limits() -> None:
    rule = OverheadRule()
    assert (rule.cpu_percent, rule.memory_bytes) == (WARN_CPU_PERCENT, WARN_MEMORY_BYTES)
    assert rule.window_s == WINDOW_S


def test_a_met_limit_is_an_event_a_line_and_in_the_status(tmp_path: Path) -> None:
    stream, events = io.StringIO(), Events()
    (tmp_path / "cpu.max").write_text("20000 100000\n")
    (tmp_path / "cpu.stat").write_text("nr_throttled 1\nthrottled_usec 100\n")
    units = UnitWarnings(Log("run", stream), events, tmp_path)
    units.look(None)
    assert events.take() == []

    (tmp_path / "cpu.stat").write_text("nr_throttled 4\nthrottled_usec 2000100\n")
    shipper = UnitState(oom_kills=1, memory_max_bytes=128 * MIB)
    units.look({"unit": shipper._asdict()})

    told = [(one.kind, one.reason, one.words, one.value, one.limit) for one in events.take()]
    assert told == [
        (
            "unit_limit",
            "cpu_quota",
            "the sampler was held back by CPUQuota=20% 3 times, 2.0 s in all",
            3,
            20,
        ),
        (
            "unit_limit",
            "oom",
            "a process of the shipper's unit was killed for want of memory (MemoryMax=128M)",
            1,
            128 * MIB,
        ),
    ]
    assert stream.getvalue().count("level=warning event=unit_limit") == 2
    status = units.status()
    assert status["sampler"]["throttled"] == 4
    assert status["shipper"]["oom_kills"] == 1


def test_outside_a_unit_nothing_is_said() -> None:
    units = UnitWarnings(Log("run", io.StringIO()), Events(), None)

    units.look({"unit": None})

    assert units.status() == {}


def test_a_killed_shipper_is_told_of_once_by_its_successors_report() -> None:
    stream, events = io.StringIO(), Events()
    units = UnitWarnings(Log("run", stream), events, None, {11}.__contains__)

    for pid in (11, 11, 12, 12, 13):
        units.look({"pid": pid})

    told = [(one.kind, one.reason, one.words) for one in events.take()]
    words = "the shipper was killed for want of memory; this is the one after"
    assert told == [("unit_limit", "oom", words)]
    assert "level=warning event=unit_limit" in stream.getvalue()


def test_a_kill_that_the_groups_counters_tell_is_not_told_again() -> None:
    events = Events()
    units = UnitWarnings(Log("run", io.StringIO()), events, None, {11}.__contains__)
    units.look({"pid": 11})

    units.look({"pid": 12, "unit": UnitState(oom_kills=1)._asdict()})

    assert len(events.take()) == 1
