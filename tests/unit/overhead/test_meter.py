"""The agent's own cost, from a collector's totals and a shipper's reports."""

import subprocess
import sys

import pytest
from msgspec.structs import asdict

from node_agent.collectors.cpu import Totals
from node_agent.cpython.spent import PythonTime
from node_agent.kernel.cpus import online_cpus
from node_agent.overhead import Calibration, Meter, ShipperUsage, get_overhead
from node_agent.overhead.meter import maps_are_charged, note_sampling
from node_agent.sampler.status import MAX_USAGE, parse_shipper_usage

SECOND_NS = 1_000_000_000
MAP_BYTES = 1_300_000


class Collector:
    """A collector whose totals the test sets."""

    def __init__(self) -> None:
        self.now = Totals(0, 0, 0)

    def totals(self) -> Totals:
        return self.now

    def map_bytes(self) -> int:
        return MAP_BYTES


@pytest.fixture
def collector() -> Collector:
    return Collector()


@pytest.fixture
def meter(collector: Collector) -> Meter:
    return Meter(collector, Calibration(10_000, 500))


def test_parts_add_up_to_the_share_of_the_host(collector: Collector, meter: Meter) -> None:
    collector.now = Totals(samples=100, interrupts=200, kernel_ns=700_000)

    found = meter.measure(None, SECOND_NS, 100)

    assert found.kernel_cpu_ns == 700_000
    assert found.interrupt_cpu_ns == 200 * 10_000  # idle CPUs are interrupted too
    total_ns = found.sampler_cpu_ns + 700_000 + 2_000_000
    assert found.cpu_percent == pytest.approx(100 * total_ns / (len(online_cpus()) * SECOND_NS))
    assert found.user_percent_of_core == pytest.approx(100 * found.sampler_cpu_ns / SECOND_NS)


def test_each_call_measures_from_the_last_one(collector: Collector, meter: Meter) -> None:
    collector.now = Totals(100, 200, 700_000)
    meter.measure(None, SECOND_NS, 100)
    collector.now = Totals(150, 260, 800_000)

    found = meter.measure(None, SECOND_NS, 50)

    assert (found.kernel_cpu_ns, found.interrupt_cpu_ns) == (100_000, 600_000)


def test_a_sample_delays_by_the_program_and_the_interrupt(
    collector: Collector, meter: Meter
) -> None:
    collector.now = Totals(100, 200, 700_000)

    found = meter.measure(ShipperUsage(1, 0, 9 << 20), SECOND_NS, 100)

    # 3.5 us in the program and 10 us of interrupt for each of the 200
    assert found.event_latency_us == pytest.approx(13.5)
    assert (found.interrupt_ns, found.interrupt_spread_ns) == (10_000, 500)
    assert found.shipper_memory_bytes == 9 << 20


def test_python_frames_are_counted_apart_in_user_space_and_in_the_kernel(
    collector: Collector,
) -> None:
    spent = PythonTime()
    meter = Meter(collector, Calibration(10_000, 500), spent)
    meter.measure(None, SECOND_NS, 0)
    collector.now = Totals(100, 200, 700_000, python_ns=400_000)
    with spent:
        sum(range(300_000))

    found = meter.measure(None, SECOND_NS, 100)

    assert 0 < found.python_sampler_cpu_ns == spent.ns <= found.sampler_cpu_ns
    assert found.python_kernel_cpu_ns == 400_000
    python_ns = spent.ns + 400_000
    whole_ns = len(online_cpus()) * SECOND_NS
    assert get_overhead().python_cpu_percent == pytest.approx(100 * python_ns / whole_ns)
    again = meter.measure(None, SECOND_NS, 0)
    assert (again.python_sampler_cpu_ns, again.python_kernel_cpu_ns) == (0, 0)


def test_nothing_sampled_delays_nothing(meter: Meter) -> None:
    assert meter.measure(None, SECOND_NS, 0).event_latency_us == 0


def test_measuring_again_replaces_the_calibration(collector: Collector) -> None:
    meter = Meter(collector, Calibration(123_456_789, 0))

    meter.recalibrate()

    assert 0 < meter.calibration.ns_per_sample < 123_456_789


def test_the_samplers_own_cpu_time_is_in_it(meter: Meter) -> None:
    before = meter.measure(None, SECOND_NS, 0)
    sum(range(3_000_000))
    after = meter.measure(None, SECOND_NS, 0)

    assert after.sampler_cpu_ns > before.sampler_cpu_ns
    assert after.sampler_cpu_ns > 1_000_000


@pytest.mark.parametrize(
    ("reports", "expected_ns"),
    [
        ([None, None], 0),
        ([(1, 500)], 0),  # the first report may reach back further than this sampler does
        ([(1, 500), (1, 800)], 300),
        ([(1, 500), (2, 100)], 100),  # a new shipper
        ([(1, 500), None, (1, 900)], 400),
        ([(1, 500), (1, 800), None], 0),
    ],
)
def test_the_shipper_counts_by_its_reports(
    meter: Meter, reports: list[tuple[int, int] | None], expected_ns: int
) -> None:
    for report in reports:
        shipper = ShipperUsage(*report, memory_bytes=4096) if report else None
        found = meter.measure(shipper, SECOND_NS, 0)

    assert found.shipper_cpu_ns == expected_ns


def test_a_shipper_that_lies_is_believed_no_more_than_can_be(meter: Meter) -> None:
    """Or the batch with such a figure would be refused."""
    for cpu_ns in (0, MAX_USAGE - 1):
        shipper = parse_shipper_usage(
            {"usage": {"pid": 1, "cpu_ns": cpu_ns, "memory_bytes": MAX_USAGE - 1}}
        )
        assert shipper is not None
        found = meter.measure(shipper, SECOND_NS // 100, 0)

    assert found.shipper_cpu_ns <= len(online_cpus()) * 200 * SECOND_NS
    assert found.cpu_percent < 1e9
    assert found.user_percent_of_core < 1e9
    assert found.memory_bytes < 1 << 62


def test_memory_of_both_and_of_the_maps_is_in_it(meter: Meter) -> None:
    alone = meter.measure(None, SECOND_NS, 0)
    both = meter.measure(ShipperUsage(1, 0, 200_000_000), SECOND_NS, 0)

    assert alone.map_bytes == MAP_BYTES
    assert alone.memory_bytes > MAP_BYTES
    assert both.memory_bytes - alone.memory_bytes > 150_000_000


def test_the_last_measurement_is_public_with_its_parts_and_how_it_was_sampled(
    meter: Meter,
) -> None:
    found = meter.measure(ShipperUsage(1, 0, 200_000_000), SECOND_NS, 50)
    note_sampling(49, 48.7, {"ring_full": 3}, ["rate (19 of 49 Hz)"], 1_800_000_000.0)

    told = get_overhead()

    assert {name: getattr(told, name) for name in found.__struct_fields__} == asdict(found)
    parts = (told.user_cpu_percent, told.kernel_cpu_percent, told.interrupt_cpu_percent)
    assert sum(parts) == pytest.approx(told.cpu_percent)
    assert min(parts[0], parts[2]) > 0
    assert (
        told.sampler_memory_bytes + told.map_bytes + told.shipper_memory_bytes == told.memory_bytes
    )
    assert (told.asked_rate_hz, told.effective_rate_hz) == (49, 48.7)
    assert told.lost == {"ring_full": 3}
    assert (told.shed, told.shed_since) == (["rate (19 of 49 Hz)"], 1_800_000_000.0)


def test_before_the_first_interval_it_is_said_in_words() -> None:
    code = (
        "from node_agent.overhead import get_overhead, OverheadError\n"
        "try: get_overhead()\n"
        "except OverheadError as error: print(error, error.remedy)"
    )
    said = subprocess.check_output([sys.executable, "-c", code], text=True)

    assert "no interval has ended" in said
    assert "flamefleet-agent status" in said


@pytest.mark.parametrize(
    ("release", "charged"),
    [
        ("5.10.0-32-cloud-amd64", False),
        ("5.11.0", True),
        ("5.15.0-91-generic", True),
        ("6.1.0-50-amd64", True),
        ("6.12.107+deb13-cloud-amd64", True),
        ("4.19.0", False),
    ],
)
def test_maps_are_charged_from_5_11_on(release: str, charged: bool) -> None:
    assert maps_are_charged(release) is charged
