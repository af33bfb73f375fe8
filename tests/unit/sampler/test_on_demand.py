"""Profiles on demand on the node: when they begin and end, what is refused, what is told."""

from collections.abc import Callable
from typing import Any

import pytest

from node_agent.config import load_config
from node_agent.sampler.on_demand import Moment, OnDemand, on_demand_facts

CLOCK_S = 1_800_000_003.0  # three seconds into a step


class Clock:
    """Unix and monotonic time that pass together, unless the first is set."""

    def __init__(self) -> None:
        self.unix_s = CLOCK_S
        self.monotonic_s = 500.0

    def unix(self) -> float:
        return self.unix_s

    def monotonic(self) -> float:
        return self.monotonic_s

    def sleep(self, seconds: float) -> None:
        self.unix_s += seconds
        self.monotonic_s += seconds


class Governed:
    """Sets what it is asked for, or less when it may not."""

    def __init__(self) -> None:
        self.rate_hz = 19
        self.most_hz = 1_000
        self.asked: list[int | None] = []

    def ask(self, rate_hz: int | None, until_s: float) -> None:
        self.asked.append(rate_hz)
        self.rate_hz = 19 if rate_hz is None else min(rate_hz, self.most_hz)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def governed() -> Governed:
    return Governed()


@pytest.fixture
def make(clock: Clock, governed: Governed) -> Callable[..., OnDemand]:
    def on_demand(**settings: Any) -> OnDemand:
        config = load_config(None, {}, {"name": "web-1", **settings})
        return OnDemand(config, governed, clock.unix, clock.monotonic)

    return on_demand


def order(number: int = 7, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "profile",
        "id": number,
        "collector": "cpu",
        "rate_hz": 199,
        "seconds": 20,
        "begin_before_s": CLOCK_S + 300,
        **changes,
    }


def told(on_demand: OnDemand) -> list[tuple[str, str, float]]:
    return [
        (event.reason, event.words, event.at_ns / 1e9 - CLOCK_S)
        for event in on_demand.take_events()
        if event.kind == "profile"
    ]


def test_it_begins_and_ends_at_whole_steps(
    make: Callable[..., OnDemand], clock: Clock, governed: Governed
) -> None:
    on_demand = make()
    on_demand.obey(order())
    on_demand.step()
    assert (on_demand.wait_s, on_demand.is_due, governed.asked) == (7.0, False, [])
    assert not on_demand.is_imminent

    clock.sleep(6.5)
    assert on_demand.is_imminent
    clock.sleep(0.52)
    on_demand.step()

    assert on_demand.is_due
    assert governed.rate_hz == 199
    assert told(on_demand) == [("begun", "profile 7: began, 199 Hz for 20 s", 7.0)]
    assert not on_demand.is_due
    assert on_demand.wait_s == pytest.approx(19.98)

    clock.sleep(19)
    on_demand.step()
    assert not on_demand.is_due
    clock.sleep(1)
    on_demand.step()

    assert on_demand.is_due
    assert governed.asked == [199, None]
    assert told(on_demand) == [("ended", "profile 7: ended after 20 s", 27.0)]
    assert on_demand.wait_s == float("inf")


def test_what_the_centre_has_not_heard_is_told_again_and_nothing_is_done_twice(
    make: Callable[..., OnDemand], clock: Clock, governed: Governed
) -> None:
    on_demand = make()
    on_demand.obey(order())
    on_demand.obey(order())
    assert told(on_demand) == []
    clock.sleep(7)
    on_demand.step()
    begun = told(on_demand)
    on_demand.obey(order())
    on_demand.obey(order())
    assert told(on_demand) == begun
    clock.sleep(20)
    on_demand.step()
    ended = told(on_demand)

    on_demand.obey(order())
    on_demand.obey({"kind": "profile_end", "id": 7})

    assert told(on_demand) == ended
    assert governed.asked == [199, None]


@pytest.mark.parametrize(
    ("settings", "changes", "words"),
    [
        ({}, {"rate_hz": 200}, "200 Hz is above this node's 199 Hz"),
        ({"on_demand_max_rate_hz": 49}, {}, "199 Hz is above this node's 49 Hz"),
        ({"on_demand_max_rate_hz": 0}, {"rate_hz": 1}, "takes no profiles on demand"),
        ({"on_demand_collectors": []}, {}, "takes no profiles on demand"),
        ({}, {"collector": "offcpu"}, "collector 'offcpu' is not offered; there is cpu"),
        ({}, {"begin_before_s": CLOCK_S - 1}, "the order came too late"),
    ],
)
def test_refusals(
    make: Callable[..., OnDemand],
    governed: Governed,
    settings: dict[str, Any],
    changes: dict[str, Any],
    words: str,
) -> None:
    on_demand = make(**settings)

    on_demand.obey(order(**changes))

    (event,) = told(on_demand)
    assert event[0] == "refused"
    assert event[1].startswith("profile 7: refused: ")
    assert words in event[1]
    assert on_demand.wait_s == float("inf")
    assert governed.asked == []


def test_one_at_a_time(make: Callable[..., OnDemand]) -> None:
    on_demand = make()
    on_demand.obey(order(7))
    on_demand.obey(order(8))

    assert [event[:2] for event in told(on_demand)] == [
        ("refused", "profile 8: refused: profile 7 is under way")
    ]
    assert on_demand.status()["profile"]["id"] == 7


def test_a_cancelled_one_ends_at_the_next_step(
    make: Callable[..., OnDemand], clock: Clock, governed: Governed
) -> None:
    on_demand = make()
    on_demand.obey(order(seconds=60))
    clock.sleep(7)
    on_demand.step()
    clock.sleep(14)
    told(on_demand)

    on_demand.obey({"kind": "profile_end", "id": 7})
    on_demand.step()
    assert governed.asked == [199]
    clock.sleep(on_demand.wait_s)
    on_demand.step()

    assert told(on_demand) == [("shortened", "profile 7: cancelled after 20 s", 27.0)]
    assert governed.asked == [199, None]


def test_cancelled_before_it_began(make: Callable[..., OnDemand], governed: Governed) -> None:
    on_demand = make()
    on_demand.obey(order())
    on_demand.obey({"kind": "profile_end", "id": 7})
    on_demand.obey({"kind": "profile_end", "id": 8})

    assert [event[:2] for event in told(on_demand)] == [
        ("shortened", "profile 7: cancelled before it began"),
        ("shortened", "profile 8: cancelled before it began"),
    ]
    assert (on_demand.wait_s, governed.asked) == (float("inf"), [])


def test_the_end_of_the_sampler_is_the_profiles(
    make: Callable[..., OnDemand], clock: Clock, governed: Governed
) -> None:
    on_demand = make()
    on_demand.obey(order())
    clock.sleep(7)
    on_demand.step()
    clock.sleep(5)
    told(on_demand)

    on_demand.stop()

    assert told(on_demand) == [("shortened", "profile 7: the sampler was stopped after 5 s", 12.0)]
    assert governed.asked == [199, None]


def test_a_rate_that_the_governor_took_back_is_said(
    make: Callable[..., OnDemand], clock: Clock, governed: Governed
) -> None:
    on_demand = make()
    governed.most_hz = 49
    on_demand.obey(order())
    clock.sleep(7)
    on_demand.step()
    clock.sleep(20)
    on_demand.step()

    words = told(on_demand)[-1][1]
    assert "at last at 49 Hz: more was too dear" in words


def test_a_missed_moment_is_waited_for_again(
    make: Callable[..., OnDemand], clock: Clock, governed: Governed
) -> None:
    on_demand = make()
    on_demand.obey(order())
    clock.sleep(7 + 6)
    on_demand.step()
    assert (governed.asked, on_demand.wait_s) == ([], 4.0)
    clock.sleep(4)
    on_demand.step()

    assert told(on_demand) == [("begun", "profile 7: began, 199 Hz for 20 s", 17.0)]


@pytest.mark.parametrize(
    ("stepped_s", "left_s"),
    [(0.0, 60.0), (0.3, 59.7), (-0.3, 60.3), (-3_600.0, 60.0), (3_600.0, 60.0)],
)
def test_a_clock_that_is_set_does_not_change_how_long_it_lasts(
    stepped_s: float, left_s: float
) -> None:
    moment = Moment(1_800_000_060, 560.0)

    assert moment.left_s(1_800_000_000 + stepped_s, 500.0) == pytest.approx(left_s)


def test_facts_say_what_may_be_asked() -> None:
    config = load_config(
        None, {"FLAMEFLEET_ON_DEMAND_MAX_RATE_HZ": "99"}, {"on_demand_collectors": "cpu"}
    )
    assert on_demand_facts(config) == {
        "on_demand_max_rate_hz": "99",
        "on_demand_collectors": "cpu",
    }
