"""95 % intervals of shares: known values, and how often they hold the truth."""

import math

import numpy as np
import pytest

from aggregator.flamegraph.intervals import intervals

FAST_NS, SLOW_NS = 10**9 // 99, 10**9  # weights of a sample at 99 Hz and at 1 Hz


def interval(hits, samples, weight=FAST_NS):
    """The interval of `hits` of `samples` that weigh the same."""
    low, high = intervals(
        np.array([hits * weight]),
        np.array([hits * float(weight) ** 2]),
        samples * weight,
        samples * float(weight) ** 2,
    )
    return low[0], high[0]


@pytest.mark.parametrize(("hits", "samples"), [(1_920, 60_000), (200, 400), (950, 1_000), (10, 20)])
def test_they_are_normal_on_the_logit_scale(hits, samples):
    share = hits / samples
    half = 1.959964 / math.sqrt(samples * share * (1 - share))
    centre = math.log(share / (1 - share))
    expected = [1 / (1 + math.exp(-(centre + side))) for side in (-half, half)]
    assert interval(hits, samples) == pytest.approx(expected)


def test_below_ten_samples_they_are_exact_poisson_limits():
    samples = 100_000

    def at_most(k, mean):
        return sum(math.exp(-mean) * mean**i / math.factorial(i) for i in range(k + 1))

    for hits in range(11):
        low, high = (end * samples for end in interval(hits, samples))
        if hits < 10:
            assert at_most(hits, high) == pytest.approx(0.025, abs=2e-4)
        if 0 < hits < 10:
            assert 1 - at_most(hits - 1, low) == pytest.approx(0.025, abs=2e-4)
        if hits < 9:  # the same of what is missing to all of it
            rest = interval(samples - hits, samples)
            assert rest == pytest.approx((1 - high / samples, 1 - low / samples))
    assert interval(0, samples)[0] == 0
    assert interval(samples, samples)[1] == 1


def test_nothing_is_known_of_nothing():
    low, high = intervals(np.array([0]), np.array([0.0]), 0, 0.0)
    assert (low[0], high[0]) == (0, 1)


def test_few_heavy_samples_make_a_wide_interval_however_many_light_ones_there_are():
    # 60 hosts at 99 Hz with 1 s each, all of it in f; one at 1 Hz with 940 s, half of them in f.
    light, heavy = 60 * 99, 940
    part = light * FAST_NS + heavy // 2 * SLOW_NS
    part_square = light * float(FAST_NS) ** 2 + heavy // 2 * float(SLOW_NS) ** 2
    whole = light * FAST_NS + heavy * SLOW_NS
    whole_square = light * float(FAST_NS) ** 2 + heavy * float(SLOW_NS) ** 2
    low, high = intervals(np.array([part]), np.array([part_square]), whole, whole_square)
    assert (high[0] - low[0]) / 2 == pytest.approx(0.030, abs=0.001)
    # All weight counted in samples of 99 Hz would say a tenth of that.
    naive = interval(round(part / FAST_NS), round(whole / FAST_NS))
    assert (naive[1] - naive[0]) / 2 == pytest.approx(0.003, abs=0.0005)


def covered(random, groups, rounds=4_000):
    """How often the interval holds the true share. groups: (period ns, samples expected, share)."""
    truth = sum(period * mean * share for period, mean, share in groups) / sum(
        period * mean for period, mean, _ in groups
    )
    held = 0
    for _ in range(rounds):
        part = whole = 0
        part_square = whole_square = 0.0
        for period, mean, share in groups:
            samples = int(random.poisson(mean))
            hits = int(random.binomial(samples, share))
            part, whole = part + hits * period, whole + samples * period
            part_square += hits * float(period) ** 2
            whole_square += samples * float(period) ** 2
        low, high = intervals(np.array([part]), np.array([part_square]), whole, whole_square)
        held += low[0] <= truth <= high[0]
    return held / rounds


@pytest.mark.parametrize(
    "groups",
    [
        [(FAST_NS, 6_000, 0.03)],
        [(FAST_NS, 6_000, 0.5)],
        [(FAST_NS, 300, 0.9)],
        [(FAST_NS, 6_000, 0.004), (SLOW_NS, 300, 0.4)],  # one slow host has most of it
        [(FAST_NS, 6_000, 0.4), (SLOW_NS, 900, 0.05)],
        [(FAST_NS, 60_000, 0.2), (10**9 // 19, 6_000, 0.2), (SLOW_NS, 600, 0.2)],
        [(FAST_NS, 20_000, 0.0), (SLOW_NS, 400, 0.2)],
    ],
)
def test_ninety_five_of_a_hundred_hold_the_truth(groups):
    assert covered(np.random.default_rng(11), groups) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("share", [0.0002, 0.001])
def test_with_few_samples_they_hold_about_as_often(share):
    assert 0.93 <= covered(np.random.default_rng(5), [(FAST_NS, 6_000, share)]) <= 1
