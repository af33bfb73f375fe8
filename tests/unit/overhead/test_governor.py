"""The governor's policy, played against hosts whose cost follows a model of what was measured."""

from collections.abc import Callable
from functools import partial

import pytest

from node_agent.overhead.governor import (
    CALM_S,
    MAX_CALM_S,
    PAUSE_S,
    Governor,
)
from node_agent.overhead.levels import Budget, Cost, Level, Step
from node_agent.overhead.memory_pressure import MEMORY_WAIT_S

INTERVAL_S = 10.0
running = partial(Governor, settle_s=0.0)  # past its start
PRODUCTION, DEVELOPMENT = Budget(0.5), Budget(1.0)
MIB = 1 << 20
Load = Callable[[Level], Cost]


def load(
    a_sample_us: float, fixed_percent: float = 0.02, python_us: float = 0, memory_mib: float = 30
) -> Load:
    """A host whose agent takes `fixed_percent`, and `a_sample_us` for each sample of a CPU, of
    which a fifth is its own user space on one of two cores."""

    def cost(level: Level) -> Cost:
        python = 0.0 if "python" in level.shed else python_us
        features = {} if "python" in level.shed else {"python": python * level.rate_hz / 1e4}
        percent = fixed_percent + (a_sample_us + python) * level.rate_hz / 1e4
        return Cost(percent, percent * 2 / 5, round(memory_mib * MIB), features)

    return cost


def play(governor: Governor, host: Load, seconds: float, start_s: float = 0.0) -> list[Step]:
    """The steps that `seconds` of intervals bring."""
    steps = []
    for number in range(1, round(seconds / INTERVAL_S) + 1):
        step = governor.observe(host(governor.level), start_s + number * INTERVAL_S)
        if step is not None:
            steps.append(step)
    return steps


@pytest.mark.parametrize(
    ("rate_hz", "budget", "a_sample_us", "settled"),
    [
        (19, PRODUCTION, 60, 19),  # the quiet machine of the README
        (99, DEVELOPMENT, 60, 99),
        (99, DEVELOPMENT, 150, 49),  # 1.5 %
        (99, DEVELOPMENT, 110, 49),  # 1.1 %, seen twice
        (99, DEVELOPMENT, 400, 19),  # 4 %
        (199, Budget(2.0), 150, 99),
        (49, Budget(1.0), 700, 11),
        (1000, Budget(2.0), 60, 199),
        (150, DEVELOPMENT, 100, 49),  # a rate that is in no preset
        (7, PRODUCTION, 60, 7),
    ],
)
def test_settles_within_thirty_seconds_at_a_rate_inside_the_budget(
    rate_hz: int, budget: Budget, a_sample_us: float, settled: int
) -> None:
    governor, host = running(rate_hz, budget), load(a_sample_us)

    play(governor, host, 20)

    assert governor.level == Level(settled)
    assert host(governor.level).cpu_percent <= budget.cpu_percent
    assert play(governor, host, 600, start_s=20) == []


@pytest.mark.parametrize(
    ("cpus", "lowest"), [(1, 11), (7, 11), (8, 5), (18, 5), (19, 2), (37, 2), (38, 1), (512, 1)]
)
def test_on_many_cpus_fewer_samples_of_each_come_before_a_pause(cpus: int, lowest: int) -> None:
    governor = running(99, DEVELOPMENT, cpus=cpus)

    levels = [step.after for step in play(governor, load(10_000), 40)]

    assert governor.lowest_hz == lowest
    assert levels == [Level(lowest), Level(0)]


def test_a_step_names_its_reason_and_its_numbers() -> None:
    governor = running(99, DEVELOPMENT)

    (step,) = play(governor, load(400), 10)

    assert step._replace(value=4) == Step("cpu", 4, 1.0, Level(99), Level(19))
    assert step.words == "99 Hz -> 19 Hz: 3.98 % of the host, limit 1"


def test_one_interval_a_little_over_changes_nothing() -> None:
    governor = running(99, DEVELOPMENT)

    costs = [load(110), load(60), load(110), load(60)]

    assert [governor.observe(cost(Level(99)), at) for at, cost in enumerate(costs)] == [None] * 4


def test_user_space_has_a_limit_of_its_own() -> None:
    governor = running(99, Budget(50.0))

    step = governor.observe(Cost(3.0, 3.5, 30 * MIB, {}), 10)

    assert step is not None
    assert (step.reason, step.after) == ("user", Level(49))
    assert step.words.endswith("3.50 % of one core in user space, limit 2")


@pytest.mark.parametrize(
    ("percent", "costs", "levels"),
    [
        # one is enough: the dearest
        (0.8, {"python": 0.2, "offcpu": 0.4}, [Level(11, ("offcpu",))]),
        (1.0, {"python": 0.3, "offcpu": 0.4}, [Level(11, ("offcpu", "python"))]),
        # what costs next to nothing saves nothing
        (0.8, {"python": 0.4, "offcpu": 0.001}, [Level(11, ("python",))]),
        (0.8, {"python": 0.001, "offcpu": 0.0}, [Level(0)]),
    ],
)
def test_at_the_lowest_rate_the_dearest_features_go_as_many_as_it_takes(
    percent: float, costs: dict[str, float], levels: list[Level]
) -> None:
    governor = running(11, PRODUCTION, ("python", "offcpu"))
    fixed = percent - sum(costs.values())

    def host(level: Level) -> Cost:
        on = {name: cost for name, cost in costs.items() if name not in level.shed}
        return Cost(fixed + sum(on.values()), 0.1, 30 * MIB, on)

    assert [step.after for step in play(governor, host, 30)] == levels


def test_where_features_are_not_enough_it_pauses_after_them() -> None:
    governor = running(11, PRODUCTION, ("python", "offcpu"))
    dear = Cost(2.0, 0.1, 30 * MIB, {"python": 0.3, "offcpu": 0.4})
    still = dear._replace(cpu_percent=1.3, features={})

    levels = [step.after for cost in (dear, still) if (step := governor.observe(cost, 10))]

    assert levels == [Level(11, ("offcpu", "python")), Level(0, ("offcpu", "python"))]


def test_a_pause_ends_by_itself_at_the_lowest_rate() -> None:
    governor = running(99, PRODUCTION)
    steps = play(governor, load(10_000), 30)
    assert steps[-1].after == Level(0)

    steps = play(governor, load(10), PAUSE_S, start_s=30)

    assert [(step.reason, step.after) for step in steps] == [("pause over", Level(11))]


def test_comes_back_one_step_at_a_time_and_says_since_when() -> None:
    governor = running(99, DEVELOPMENT)
    play(governor, load(400), 10)
    assert governor.since_s == 10

    steps = play(governor, load(20), 400, start_s=10)

    assert [step.after for step in steps] == [Level(49), Level(99)]
    assert {step.reason for step in steps} == {"room"}
    assert governor.since_s is None


def test_python_frames_come_back_before_the_rate() -> None:
    governor = running(19, PRODUCTION, ("python",))
    play(governor, load(300, python_us=300), 30)
    assert governor.level == Level(11, ("python",))

    steps = play(governor, load(20, python_us=10), 400, start_s=30)

    assert [step.after for step in steps] == [Level(11), Level(19)]


def test_a_feature_that_would_not_fit_stays_off() -> None:
    governor = running(11, PRODUCTION, ("python",))
    host = load(100, python_us=500)  # 0.13 % without it, 0.68 % with it
    play(governor, host, 20)
    assert governor.level == Level(11, ("python",))

    assert play(governor, host, 3600, start_s=20) == []


def test_a_cost_between_the_two_bounds_changes_nothing() -> None:
    governor = running(49, DEVELOPMENT)
    play(governor, load(350), 10)
    assert governor.level == Level(19)

    # 0.34 % now, but 0.86 % at 49 Hz: it would fit, without any room
    assert play(governor, load(170), 3600, start_s=10) == []


def test_a_load_that_returns_makes_each_attempt_wait_longer() -> None:
    governor = running(99, DEVELOPMENT)

    def swinging(level: Level) -> Cost:
        """Cheap for as long as the rate is low."""
        return load(400 if level.rate_hz == 99 else 5)(level)

    steps = play(governor, swinging, 4 * 3600)

    tries = [step for step in steps if step.after == Level(99)]
    assert 3 <= len(tries) <= 10


def test_the_wait_has_an_upper_bound_and_starts_over_after_a_good_time() -> None:
    governor = running(99, DEVELOPMENT)
    at = 0.0
    waits = []
    for _ in range(9):
        play(governor, load(150), INTERVAL_S, at)  # too dear: down to 49
        at += INTERVAL_S
        began = at
        while governor.level != Level(99):
            play(governor, load(10), INTERVAL_S, at)
            at += INTERVAL_S
        waits.append(at - began)
    assert waits[0] == CALM_S + INTERVAL_S
    assert waits[1] == 2 * CALM_S + INTERVAL_S
    assert waits[-1] == MAX_CALM_S + INTERVAL_S

    at += MAX_CALM_S + INTERVAL_S  # the last step up held for long enough
    play(governor, load(150), INTERVAL_S, at)
    (step,) = play(governor, load(10), CALM_S + INTERVAL_S, at + INTERVAL_S)
    assert step.after == Level(99)


def test_memory_goes_down_one_step_at_a_time_with_time_to_give_it_back() -> None:
    governor = running(99, DEVELOPMENT)
    host = load(10, memory_mib=60)

    steps = play(governor, host, MEMORY_WAIT_S + INTERVAL_S)

    assert [step.after for step in steps] == [Level(49), Level(19)]
    assert steps[0].words == "99 Hz -> 49 Hz: memory 60.0 MiB, limit 50"


def test_memory_that_grows_lowers_the_rate_before_its_limit_is_met() -> None:
    governor = running(99, DEVELOPMENT)

    steps = [governor.watch_memory(round(mib * MIB), at) for at, mib in enumerate((30, 36, 44))]

    assert steps[:2] == [None, None]
    assert steps[2] is not None
    assert (steps[2].reason, steps[2].after) == ("memory", Level(49))
    assert steps[2].words == "99 Hz -> 49 Hz: memory 44.0 MiB and growing, limit 50"
    # The time that memory has to be given back ends where it grows on.
    assert governor.watch_memory(44 * MIB, 4.0) is None
    step = governor.watch_memory(48 * MIB, 5.0)
    assert step is not None
    assert step.after == Level(19)


def test_memory_near_its_limit_that_stays_as_it_is_changes_nothing() -> None:
    governor = running(99, DEVELOPMENT)

    assert play(governor, load(10, memory_mib=48), 3600) == []


def test_memory_is_judged_in_the_first_minute_too() -> None:
    governor = Governor(99, DEVELOPMENT)

    assert [step.after for step in play(governor, load(10, memory_mib=60), 10)] == [Level(49)]


def test_memory_is_no_reason_for_a_pause() -> None:
    governor = running(99, DEVELOPMENT)

    play(governor, load(10, memory_mib=80), 3600)

    assert governor.level == Level(11)


def test_the_first_minute_may_cost_more_but_not_anything() -> None:
    governor = Governor(99, DEVELOPMENT)
    assert play(governor, load(250), 60) == []  # 2.5 %
    assert [step.after for step in play(governor, load(250), 20, 60)] == [Level(19)]

    governor = Governor(99, DEVELOPMENT)
    assert [step.after for step in play(governor, load(400), 10)] == [Level(19)]


def test_full_memory_keeps_the_rate_down() -> None:
    governor = running(99, DEVELOPMENT)
    play(governor, load(400), 10)

    assert play(governor, load(1, memory_mib=45), 3600, start_s=10) == []


def test_another_rate_may_be_asked_for_and_is_governed_too() -> None:
    governor = running(19, DEVELOPMENT)

    step = governor.ask(199, 5)

    assert step is not None
    assert (step.reason, step.after) == ("asked", Level(199))
    assert step.words == "19 Hz -> 199 Hz: 199 Hz was asked for"
    assert governor.since_s is None
    dear = [step.after.rate_hz for step in play(governor, load(1000), 60, start_s=5)]
    assert dear == [11, 0]
    governor = running(19, DEVELOPMENT)
    governor.ask(199, 5)
    assert [step.after for step in play(governor, load(150), 60, start_s=5)] == [Level(49)]
    assert governor.since_s == 15

    step = governor.ask(19, 70)

    assert step is not None
    assert (step.reason, step.after) == ("asked over", Level(19))
    assert governor.since_s is None
    assert play(governor, load(60), 3600, start_s=70) == []


@pytest.mark.parametrize(
    ("configured_hz", "asked_hz", "seen"),
    [
        (19, 199, [99, 49, 19, 11]),
        (25, 199, [99, 49, 25, 19, 11]),
        (19, 49, [19, 11]),
        (99, 19, [11]),
    ],
)
def test_the_ladder_follows_the_rate_that_is_asked_for(
    configured_hz: int, asked_hz: int, seen: list[int]
) -> None:
    governor = running(configured_hz, DEVELOPMENT)
    governor.ask(asked_hz, 0)
    full = Cost(0.0, 0.0, 80 * MIB, {})  # memory goes down one step at a time

    steps = [governor.observe(full, MEMORY_WAIT_S * number) for number in range(1, 9)]

    assert [step.after.rate_hz for step in steps if step] == seen


def test_where_something_is_given_up_the_asked_rate_waits_for_room() -> None:
    governor = running(19, PRODUCTION)
    play(governor, load(500), 20)
    assert governor.level == Level(11)

    assert governor.ask(49, 20) is None

    steps = play(governor, load(10), 400, start_s=20)
    assert [step.after for step in steps] == [Level(19), Level(49)]
    step = governor.ask(19, 500)
    assert step is not None
    assert step.after == Level(19)


@pytest.mark.parametrize(
    ("load_us", "levels"),
    [
        # CPython alone is too dear at 11 Hz: what is left fits, and the load's end brings all back
        ([(60, 10), (300, 400)], ["49 Hz", "19 Hz", "11 Hz", "11 Hz without python"]),
        ([(60, 10), (900, 400)], ["11 Hz", "11 Hz without python", "paused without python"]),
    ],
)
def test_a_recorded_load_takes_rate_then_python_then_all_and_gives_all_back(
    load_us: list[tuple[float, float]], levels: list[str]
) -> None:
    governor = running(99, PRODUCTION, ("python",))
    steps, at = [], 0.0
    for a_sample_us, python_us in load_us:
        steps += play(governor, load(a_sample_us, python_us=python_us), 60, at)
        at += 60
    down = [step.after.words for step in steps if step.reason == "cpu"]
    assert [words for words in down if words in levels] == [
        words for words in levels if words in down
    ]
    assert down[-1] == levels[-1]

    steps = play(governor, load(20, python_us=10), 1800, start_s=at)

    assert governor.level == Level(99)
    assert governor.since_s is None
    up = [step.after.words for step in steps if step.reason == "room"]
    assert up == ["11 Hz", "19 Hz", "49 Hz", "99 Hz"]


def test_memory_gives_up_no_feature() -> None:
    governor = running(19, DEVELOPMENT, ("python",))

    play(governor, load(10, python_us=10, memory_mib=80), 3600)

    assert governor.level == Level(11)


def test_a_run_goes_on_with_what_the_one_before_had_given_up() -> None:
    governor = running(99, DEVELOPMENT, ("python",))

    governor.go_on_at(11, ["python"], 5)

    assert (governor.level, governor.since_s) == (Level(11, ("python",)), 5)
    assert [step.after for step in play(governor, load(1), 70, start_s=5)] == [Level(11)]
