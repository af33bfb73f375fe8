"""Sizes of the CPU collector's maps."""

import pytest

from node_agent.collectors.map_sizes import (
    MAP_BUDGET_BYTES,
    MAX_RING_BYTES,
    MIN_ENTRIES,
    MIN_RING_BYTES,
    MapSizes,
    next_power_of_two,
    plan_map_sizes,
)
from node_agent.sampler.intake import MAX_STACKS


def plan(
    rate_hz: int, cpus: int, interval_s: float = 10, max_samples: int = 10_000_000
) -> MapSizes:
    return plan_map_sizes(rate_hz, cpus, interval_s, max_samples, 56, 2168)


@pytest.mark.parametrize("rate_hz", [1, 19, 99, 1000])
@pytest.mark.parametrize("cpus", [1, 2, 64, 512, 1024])
@pytest.mark.parametrize("interval_s", [0.1, 10, 3600])
def test_every_size_stays_inside_the_budget(rate_hz: int, cpus: int, interval_s: float) -> None:
    sizes = plan(rate_hz, cpus, interval_s)

    assert sizes.total_bytes <= MAP_BUDGET_BYTES
    assert sizes.count_entries >= 1
    assert MIN_RING_BYTES <= sizes.ring_bytes <= MAX_RING_BYTES
    assert sizes.ring_bytes & (sizes.ring_bytes - 1) == 0  # the kernel wants a power of two


@pytest.mark.parametrize(("rate_hz", "cpus"), [(19, 4), (99, 2), (99, 8), (19, 64)])
def test_counts_cannot_fill_up_on_ordinary_hosts(rate_hz: int, cpus: int) -> None:
    samples = rate_hz * cpus * 10
    entries = plan(rate_hz, cpus).count_entries

    assert entries >= samples
    assert entries >= min(2 * samples, 2 * MAX_STACKS), "room for a drain that comes late"


def test_small_hosts_get_the_smallest_maps() -> None:
    assert plan(19, 2)[:2] == (MIN_ENTRIES, MIN_RING_BYTES)


def test_max_samples_is_the_upper_limit() -> None:
    assert plan(99, 8, max_samples=500).count_entries == 500


@pytest.mark.parametrize(("number", "power"), [(1, 1), (2, 2), (3, 4), (1024, 1024), (1025, 2048)])
def test_next_power_of_two(number: int, power: int) -> None:
    assert next_power_of_two(number) == power
