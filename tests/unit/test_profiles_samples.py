from fractions import Fraction

import numpy as np
import pytest

from aggregator.profiles.codec import Section, encode_sections
from aggregator.profiles.reading import StoredRow
from aggregator.profiles.samples import SampleSums, list_stacks, open_rows, weigh
from aggregator.profiles.span import Span

SPAN = Span(0, 60, (0, 60), ())


def section(series_id, rate, counts):
    ids = np.array(sorted(counts), np.int64)
    return Section(series_id, rate, ids, np.array([counts[i] for i in sorted(counts)], np.int64))


def stored(node_id, sections, lost=0):
    samples = sum(int(s.counts.sum()) for s in sections)
    return StoredRow(node_id, 0, samples, lost, 10_000, encode_sections(sections))


@pytest.mark.parametrize("rate", [1, 7, 19_000, 99_000, 1_000_000])
def test_weights_are_exact_also_where_doubles_are_not(rate):
    counts = [1, 3, 10**6, 10**11 if rate >= 19_000 else 10**6]
    weighed = weigh(section(1, rate, dict(enumerate(counts))))
    for weight, count in zip(weighed.tolist(), counts, strict=True):
        assert abs(weight - Fraction(count * 10**12, rate)) <= Fraction(1, 2)


def test_sums_by_series_rate_and_stack():
    sums = SampleSums()
    rows = [
        stored(1, [section(1, 19_000, {5: 1, 6: 2}), section(2, 19_000, {5: 4})]),
        stored(2, [section(1, 19_000, {6: 8}), section(1, 99_000, {6: 16})], lost=31),
        stored(3, []),
    ]
    sums.add(open_rows(rows))
    names = {1: "b", 2: "a"}
    stacks = list_stacks(sums, SPAN, names.__getitem__, "node {}".format)
    assert stacks.services == ["a", "b"]
    found = zip(
        stacks.service_index.tolist(),
        stacks.stack_ids.tolist(),
        stacks.counts.tolist(),
        strict=True,
    )
    assert list(found) == [(1, 5, 1), (1, 6, 10), (1, 6, 16), (0, 5, 4)]
    assert stacks.host_names == ["node 1", "node 2", "node 3"]
    totals = stacks.totals
    assert (totals.samples, totals.lost, totals.covered_ms) == (31, 31, 30_000)
    assert totals.weight_ns == int(stacks.weights.sum())
    cpu_s = 15 / 19 + 16 / 99
    assert totals.effective_rate_hz == pytest.approx(31 / cpu_s / 2)


def test_a_choice_of_series_covers_the_hosts_that_have_them_with_all_their_rows():
    sums = SampleSums(lambda series_id: series_id == 2)
    rows = [
        stored(1, [section(1, 19_000, {5: 1})], lost=1),
        stored(1, [section(2, 19_000, {5: 4})], lost=2),
        stored(2, [section(1, 19_000, {6: 8})], lost=4),
        StoredRow(1, 0, 50, 0, 10_000, b"damaged"),
    ]
    sums.add(open_rows(rows))
    sections, totals = sums.finish()
    assert [(s.series_id, s.counts.tolist()) for s in sections] == [(2, [4])]
    assert totals.node_ids == {1}
    assert (totals.samples, totals.all_samples, totals.lost) == (4, 5, 53)
    assert (totals.covered_ms, totals.damaged_blobs) == (30_000, 1)


def test_nothing_has_no_rate():
    _, totals = SampleSums().finish()
    assert totals.effective_rate_hz == 0.0


def test_merging_on_the_way_changes_nothing(monkeypatch):
    def run():
        random = np.random.default_rng(4)
        sums = SampleSums()
        for _ in range(40):
            ids = random.choice(200, 30, replace=False).tolist()
            made = section(
                int(random.integers(3)), 19_000, {i: int(random.integers(1, 9)) for i in ids}
            )
            sums.add(open_rows([stored(1, [made])]))
        return [(s.series_id, s.ids.tolist(), s.counts.tolist()) for s in sums.finish()[0]]

    whole = run()
    monkeypatch.setattr("aggregator.profiles.column_sums._SUM_AT_ROWS", 100)
    assert run() == whole


def test_cores_are_those_of_each_host_while_it_was_covered():
    # A 10-core host covered for 15 min, an idle 2-core host for 10 s.
    sums = SampleSums()
    sums.add(open_rows([stored(1, [section(1, 10_000, {5: 990})])] * 90))
    sums.add(open_rows([stored(2, [section(1, 10_000, {5: 1})])]))
    stacks = list_stacks(sums, SPAN, str, str, {1: 10, 2: 2}.get)
    assert stacks.cores == pytest.approx(9.9 + 0.01)
    assert stacks.cpus == 12


def test_cores_are_never_more_than_there_are():
    sums = SampleSums()
    sums.add(open_rows([stored(1, [section(1, 10_000, {5: 205})])]))
    assert list_stacks(sums, SPAN, str, str, {1: 2}.get).cores == 2
    unknown = list_stacks(sums, SPAN, str, str)
    assert unknown.cores == pytest.approx(2.05)
    assert unknown.cpus is None


def test_cores_of_a_service_are_of_its_samples_over_the_time_of_its_hosts():
    sums = SampleSums(lambda series_id: series_id == 1)
    for sections in ([section(1, 10_000, {5: 100})], [section(2, 10_000, {5: 100})]):
        sums.add(open_rows([stored(1, sections)]))
    assert list_stacks(sums, SPAN, str, str).cores == pytest.approx(0.5)


def test_a_host_that_was_not_observed_is_not_covered():
    sums = SampleSums()
    sums.add(open_rows([stored(1, [section(1, 10_000, {5: 5})])]))
    sums.add(open_rows([stored(2, [])._replace(covered_ms=0)]))
    stacks = list_stacks(sums, SPAN, str, str, {1: 4, 2: 2}.get)
    assert (stacks.host_names, stacks.cpus) == (["1"], 4)
