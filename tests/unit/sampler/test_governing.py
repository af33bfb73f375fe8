"""What the sampler does when the governor decides: the rate, the batch's facts, the status."""

import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from node_agent.collectors.stacks import Interval
from node_agent.config import AgentConfig, load_config
from node_agent.kernel.cpus import online_cpus
from node_agent.kernel.errors import PerfEventError
from node_agent.sampler.events import Events
from node_agent.sampler.features import PythonFrames
from node_agent.sampler.governing import Governing
from wire.schema import Overhead

SECOND_NS = 1_000_000_000


class Collector:
    """Remembers the rates that were set; refuses those of `refused`."""

    def __init__(self, rate_hz: int = 99) -> None:
        self.rate_hz = rate_hz
        self.rates: list[int] = []
        self.refused: set[int] = set()

    def drop_interval(self) -> int:
        return 3

    def set_rate(self, rate_hz: int) -> None:
        if rate_hz in self.refused:
            raise PerfEventError("Cannot open a sampling event", "no", "Choose another rate.")
        self.rates.append(rate_hz)


def lasting(seconds: float) -> Interval:
    return Interval({}, {}, 0, 0, 0, round(seconds * SECOND_NS))


@pytest.fixture
def config() -> AgentConfig:
    return load_config(None, {}, {"name": "host-1", "preset": "development"})


@pytest.fixture
def collector() -> Collector:
    return Collector()


@pytest.fixture
def governing(config: AgentConfig, collector: Collector) -> Governing:
    return Governing(config, collector)


@pytest.fixture
def spend(governing: Governing) -> Callable[[float], None]:
    """Ends an interval of ten seconds that cost so many percent of the host."""

    def end(percent: float) -> None:
        overhead = Overhead(0, 0, 0, 0, 30 << 20, 1 << 20, percent, 0.1)
        governing.end_interval(overhead, lasting(10))

    return end


def test_inside_the_budget_nothing_happens(
    governing: Governing, collector: Collector, spend: Callable[[float], None]
) -> None:
    spend(0.6)

    assert collector.rates == []
    assert governing.facts == {}
    assert governing.status() == {"shed": [], "shed_since": None, "governor": []}


def test_beyond_it_the_rate_sinks_and_everybody_is_told(
    governing: Governing,
    collector: Collector,
    spend: Callable[[float], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    spend(4.0)

    assert collector.rates == [0, 19]
    assert governing.rate_hz == 19
    words = "99 Hz -> 19 Hz: 4.00 % of the host, limit 1"
    assert governing.facts["governor"].startswith(f"{words} (at 20")
    assert capsys.readouterr().err == (
        f'flamefleet-agent run: level=warning event=governor words="{words}"'
        " reason=cpu value=4 limit=1 rate_hz=19\n"
    )
    status = governing.status()
    assert status["shed"] == ["rate (19 of 99 Hz)"]
    assert status["shed_since"] is not None
    assert [step["words"] for step in status["governor"]] == [words]


def test_a_rate_that_the_kernel_refuses_changes_nothing(
    governing: Governing,
    collector: Collector,
    spend: Callable[[float], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    collector.refused = {19}

    spend(4.0)

    assert collector.rates == [0, 99]
    assert governing.rate_hz == 99
    assert governing.status()["shed"] == []
    assert "the governor cannot go to 19 Hz" in capsys.readouterr().err


def test_what_a_pause_leaves_out_is_lost_and_counted(
    governing: Governing, collector: Collector, spend: Callable[[float], None]
) -> None:
    interval = Interval({}, {"stack_error": 1}, 0, 0, 0, 10 * SECOND_NS)
    assert governing.booked(interval) == interval

    for _ in range(2):
        spend(400.0)

    assert collector.rates == [0, 11, 0, 0]
    assert governing.rate_hz == 11
    assert governing.status()["shed"] == ["sampling (paused)"]
    missed = 11 * len(online_cpus()) * 10
    # twice the three samples that no interval had; counted once
    lost = {"stack_error": 1, "paused": missed, "rate_change": 6}
    assert governing.booked(interval).lost == lost
    assert governing.booked(interval).lost == {"stack_error": 1, "paused": missed}


def test_the_cost_of_children_is_no_reason(config: AgentConfig, collector: Collector) -> None:
    governing = Governing(config, collector)
    code = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", code], check=True)

    # 0.3 s of a child in 10 s are 3 % of a core, which the meter has in its figures
    percent = 3.0 / len(online_cpus())
    overhead = Overhead(0, 0, 0, 0, 30 << 20, 1 << 20, percent + 0.5, 3.4)
    governing.end_interval(overhead, lasting(10))

    assert collector.rates == []


def test_the_time_that_a_batch_takes_counts_for_its_own_interval(
    governing: Governing, collector: Collector
) -> None:
    overhead = Overhead(0, 0, 0, 0, 30 << 20, 1 << 20, 0.1, 1.0)
    governing.end_interval(overhead, lasting(10), SECOND_NS)
    assert collector.rates == [0, 11]  # 11 % of a core

    # 10 of the 11 were of the batch before, and without them there is no reason for another step.
    overhead = Overhead(0, 0, 0, 0, 30 << 20, 1 << 20, 5.0, 11.0)
    governing.end_interval(overhead, lasting(10))
    assert collector.rates == [0, 11]


def test_what_the_run_before_gave_up_stays_given_up(config: AgentConfig) -> None:
    governing = Governing(config, Collector(rate_hz=11))

    assert governing.rate_hz == 11
    assert governing.facts["governor"] == "11 Hz, as the run before"
    assert governing.facts["shed"] == "rate (11 of 99 Hz)"
    assert governing.facts["shed_since"].startswith("20")
    assert governing.status()["shed"] == ["rate (11 of 99 Hz)"]


def test_a_rate_that_is_asked_for_begins_with_the_next_interval_and_ends_in_time(
    governing: Governing, collector: Collector, spend: Callable[[float], None]
) -> None:
    governing.ask(5000, time.monotonic() + 3600)

    assert governing.is_due
    assert (governing.rate_hz, governing.interval_s) == (99, 10.0)
    spend(0.6)
    assert collector.rates == [0, 199]
    assert not governing.is_due
    assert (governing.rate_hz, governing.asked_hz) == (199, 199)
    assert governing.interval_s == pytest.approx(10 * 2 * 99 / 199)
    assert governing.status()["shed"] == []

    governing.ask(199, time.monotonic() - 1)

    assert governing.is_due
    spend(0.6)
    assert collector.rates == [0, 199, 0, 99]
    reasons = [step["reason"] for step in governing.status()["governor"]]
    assert reasons == ["asked", "asked over"]


def test_taking_back_what_was_not_begun_changes_nothing(
    governing: Governing, collector: Collector, spend: Callable[[float], None]
) -> None:
    governing.ask(199, time.monotonic() + 3600)
    governing.ask(None, 0)

    assert not governing.is_due
    spend(0.6)
    assert collector.rates == []


def test_the_rate_that_a_run_before_was_asked_for_ends_with_its_interval(
    config: AgentConfig,
) -> None:
    collector = Collector(rate_hz=199)
    governing = Governing(config, collector)

    assert governing.is_due
    assert governing.rate_hz == 199  # its samples are weighed by that
    governing.end_interval(Overhead(0, 0, 0, 0, 30 << 20, 1 << 20, 0.5, 0.1), lasting(1))

    assert collector.rates == [0, 99]
    assert governing.rate_hz == 99


def test_short_intervals_are_judged_together(governing: Governing, collector: Collector) -> None:
    for percent in (9.0, 0.1, 0.1, 0.1):  # 1.0 % in ten seconds
        overhead = Overhead(0, 0, 0, 0, 30 << 20, 1 << 20, percent, 0.1)
        governing.end_interval(overhead, lasting(1))

    assert collector.rates == []
    governing.end_interval(Overhead(0, 0, 0, 0, 30 << 20, 1 << 20, 9.0, 0.1), lasting(1))
    assert collector.rates == [0, 19]  # 3.7 %


class Python:
    """A collector that reads Python frames."""

    def __init__(self) -> None:
        self.reads_python = True
        self.turned: list[bool] = []

    def read_python(self, is_on: bool) -> None:
        self.reads_python = is_on
        self.turned.append(is_on)


def test_python_frames_go_when_the_rate_cannot_sink_further_and_all_steps_are_events(
    config: AgentConfig, collector: Collector
) -> None:
    python, events = Python(), Events()
    governing = Governing(config, collector, [PythonFrames(python)], events)
    half_ns = 10 * SECOND_NS // 200 * len(online_cpus())  # half a percent of the host

    def spend(percent: float) -> None:
        overhead = Overhead(0, 0, 0, 0, 30 << 20, 1 << 20, percent, 0.1)
        if python.reads_python:
            parts = {"python_sampler_cpu_ns": half_ns, "python_kernel_cpu_ns": half_ns}
            overhead = replace(overhead, **parts)
        governing.end_interval(overhead, lasting(10))

    for percent in (100.0, 8.0, 0.8, 9.0):
        spend(percent)

    assert collector.rates == [0, 11, 0, 0]
    assert python.turned == [False]
    assert governing.status()["shed"] == ["sampling (paused)", "Python frames"]
    told = events.take()
    assert [(event.kind, event.reason, event.before, event.after) for event in told] == [
        ("governor", "cpu", "99 Hz", "11 Hz"),
        ("governor", "cpu", "11 Hz", "11 Hz without Python frames"),
        ("governor", "cpu", "11 Hz without Python frames", "paused without Python frames"),
    ]
    assert [(event.value, event.limit) for event in told] == [(100.0, 1.0), (8.0, 1.0), (9.0, 1.0)]


def test_features_that_the_run_before_had_given_up_stay_so(config: AgentConfig) -> None:
    python = Python()
    python.reads_python = False

    governing = Governing(config, Collector(rate_hz=11), [PythonFrames(python)])

    assert governing.status()["shed"] == ["rate (11 of 99 Hz)", "Python frames"]
