"""The cost of an interrupt from pairs of slices."""

from node_agent.overhead.calibration import ASSUMED_NS, Calibration, summarize

SLICE_NS = 2_000_000  # 16 interrupts at 8 kHz


def test_the_cost_is_the_difference_by_interrupt() -> None:
    pairs = [(SLICE_NS, SLICE_NS + 16 * 5_000)] * 10

    assert summarize(pairs) == Calibration(5_000, 0)


def test_preempted_slices_do_not_count() -> None:
    pairs = [(SLICE_NS, SLICE_NS + 16 * 5_000)] * 9
    pairs += [(SLICE_NS, SLICE_NS + 40_000_000), (SLICE_NS + 30_000_000, SLICE_NS)]

    assert summarize(pairs).ns_per_sample == 5_000


def test_the_spread_is_half_the_distance_of_the_quartiles() -> None:
    pairs = [(SLICE_NS, SLICE_NS + 16 * cost) for cost in range(1_000, 9_001, 1_000)]

    assert summarize(pairs) == Calibration(5_000, 2_000)


def test_noise_larger_than_the_cost_falls_back_to_the_assumed_cost() -> None:
    pairs = [(SLICE_NS, SLICE_NS - 1_000)] * 10

    assert summarize(pairs) == Calibration(ASSUMED_NS, ASSUMED_NS, is_measured=False)


def test_too_few_pairs_fall_back_to_the_assumed_cost() -> None:
    assert not summarize([(SLICE_NS, SLICE_NS + 100)] * 3).is_measured
    assert not summarize([(1_000, 2_000)] * 100).is_measured  # shorter than one period
