"""The limits of a service's unit, by the files of its control group."""

from pathlib import Path

import pytest

from node_agent.overhead.unit_limits import (
    TELL_EVERY_S,
    LimitTeller,
    UnitState,
    parse_unit,
    read_unit,
)

# As Linux 6.1 writes them.
CPU_STAT = """usage_usec 4021188
user_usec 2518931
system_usec 1502257
nr_periods 1422
nr_throttled 37
throttled_usec 1912004
nr_bursts 0
burst_usec 0
"""
MEMORY_EVENTS = "low 0\nhigh 5\nmax 12\noom 2\noom_kill 1\noom_group_kill 0\n"


def test_all_of_a_group_is_read(tmp_path: Path) -> None:
    for name, text in {
        "cpu.stat": CPU_STAT,
        "memory.events": MEMORY_EVENTS,
        "cpu.max": "20000 100000\n",
        "memory.high": "max\n",
        "memory.max": "268435456\n",
    }.items():
        (tmp_path / name).write_text(text)

    assert read_unit(tmp_path) == UnitState(37, 1912004, 5, 12, 1, 20, 0, 256 << 20)


def test_a_group_without_controllers_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "cpu.stat").write_text("usage_usec 1\nuser_usec 1\nsystem_usec 0\n")

    assert read_unit(tmp_path) == UnitState()
    assert read_unit(tmp_path / "gone") == UnitState()
    assert LimitTeller("the sampler").note(read_unit(tmp_path), 0) == []


@pytest.mark.parametrize(
    ("grown", "reason", "words"),
    [
        (
            {"throttled": 3, "throttled_us": 250_000},
            "cpu_quota",
            "the sampler was held back by CPUQuota=20% 3 times, 0.2 s in all",
        ),
        ({"memory_high": 1}, "memory_high", "the sampler met MemoryHigh=200M once"),
        ({"memory_max": 7}, "memory_max", "the sampler met MemoryMax=256M 7 times"),
        (
            {"oom_kills": 1},
            "oom",
            "a process of the sampler's unit was killed for want of memory (MemoryMax=256M)",
        ),
    ],
)
def test_growth_is_told_with_its_numbers(grown: dict[str, int], reason: str, words: str) -> None:
    before = UnitState(10, 10, 10, 10, 0, 20, 200 << 20, 256 << 20)
    teller = LimitTeller("the sampler")
    assert teller.note(before, 0) == []
    after = before._replace(**{name: getattr(before, name) + n for name, n in grown.items()})

    (met,) = teller.note(after, 10)

    assert (met.reason, met.times, met.words) == (reason, next(iter(grown.values())), words)
    assert met.limit in (20, 200 << 20, 256 << 20)
    assert teller.note(after, 20) == []


def test_a_reason_is_told_at_most_every_five_minutes_and_nothing_is_left_out() -> None:
    teller = LimitTeller("the shipper")
    teller.note(UnitState(quota_percent=20), 0)

    told = [
        (now_s, met.times)
        for now_s in range(10, 1000, 10)
        for met in teller.note(UnitState(throttled=now_s // 10, quota_percent=20), now_s)
    ]

    assert told == [(10, 1), (10 + TELL_EVERY_S, 30), (10 + 2 * TELL_EVERY_S, 30), (910, 30)]


def test_a_kill_before_the_first_look_is_told_by_the_process_that_came_after() -> None:
    teller = LimitTeller("the sampler")

    met = teller.note(UnitState(throttled=5, memory_max=9, oom_kills=2), 0)

    assert [(one.reason, one.times) for one in met] == [("oom", 2)]


def test_a_unit_that_was_started_again_counts_from_nothing() -> None:
    teller = LimitTeller("the shipper")
    teller.note(UnitState(throttled=50, memory_max=9), 0)

    met = teller.note(UnitState(throttled=2), 10)

    assert [(one.reason, one.times) for one in met] == [("cpu_quota", 2)]


@pytest.mark.parametrize(
    "said", [None, [], {"throttled": "3"}, {"throttled": -1}, {"throttled": 1 << 63}]
)
def test_another_users_report_is_not_believed(said: object) -> None:
    assert parse_unit(said) is None


def test_a_report_is_read_back() -> None:
    state = UnitState(1, 2, 3, 4, 5, 20, 6, 7)

    assert parse_unit(state._asdict()) == state
    assert parse_unit({**state._asdict(), "later": 1}) == state
