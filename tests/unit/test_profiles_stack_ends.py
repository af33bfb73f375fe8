"""Blobs of how stacks ended, and their sums."""

import numpy as np
import pytest

from aggregator.profiles.blob_columns import read_heads
from aggregator.profiles.codec import Section, encode_sections
from aggregator.profiles.reading import StoredRow
from aggregator.profiles.samples import SampleSums, open_rows
from aggregator.profiles.stack_ends import (
    NOTHING,
    PYTHON_REASONS,
    REASONS,
    EndSums,
    encode_ends,
    known_reason,
    make_ends,
)
from wire.schema import PYTHON_ENDS, STACK_ENDS


def blob(samples, series_ids=(7, 3), rate=19_000):
    columns = {reason: np.array(counts, np.int64) for reason, counts in samples.items()}
    return encode_ends(make_ends(columns, rate, series_ids))


def python_blob(samples, series_ids=(7, 3)):
    columns = {reason: np.array(counts, np.int64) for reason, counts in samples.items()}
    return encode_ends(make_ends({}, 19_000, series_ids, columns))


def sums_of(*blobs):
    sums = EndSums()
    for one in blobs:
        sums.add(read_heads([one]))
    return sums


def test_the_numbers_of_stored_reasons_never_change():
    assert (
        *("other", "complete", "truncated", "no_mapping", "no_rows", "no_room"),
        *("unsupported_rule", "read_fault"),
    ) == REASONS
    assert (
        *("other", "complete", "truncated", "no_thread_state", "read_fault", "off"),
    ) == PYTHON_REASONS
    assert all(known_reason(word) == word for word in STACK_ENDS)
    assert all(known_reason(word, PYTHON_REASONS) == word for word in PYTHON_ENDS)
    assert known_reason("word_of_2030") == "other"


def test_sums_by_reason_over_batches_rates_and_series():
    sums = sums_of(
        blob({"complete": [90, 5], "no_rows": [0, 3]}),
        blob({"complete": [10, 0], "read_fault": [1, 0]}, rate=99_000),
        NOTHING,
        blob({"complete": [1, 2, 4]}, series_ids=(3, 3, 9)),
    )
    assert sums.series_ids() == {3, 7, 9}
    ends = sums.of(None)
    assert ends.samples == {"complete": 112, "no_rows": 3, "read_fault": 1}
    assert (ends.total, ends.complete_share) == (116, round(112 / 116, 6))
    assert sums.of(lambda series_id: series_id == 3).samples == {"complete": 8, "no_rows": 3}
    by = sums.by({3: "a", 7: "b"}.get)
    assert {name: one.samples for name, one in by.items()} == {
        "a": {"complete": 8, "no_rows": 3},
        "b": {"complete": 100, "read_fault": 1},
    }


def test_nothing_takes_no_room_and_has_no_share():
    assert blob({}) == blob({"complete": [0, 0]}) == NOTHING
    assert sums_of(NOTHING).of(None).complete_share is None


def test_a_reason_of_a_later_release_counts_as_other():
    late = Section(200, 19_000, np.array([3]), np.array([5]))
    assert sums_of(encode_sections([late])).of(None).samples == {"other": 5}
    late = Section(120, 19_000, np.array([3]), np.array([5]))
    assert sums_of(encode_sections([late])).of(None).python == {"other": 5}


def test_merging_on_the_way_changes_nothing(monkeypatch):
    blobs = [blob({"complete": [n, 1], REASONS[n % 8]: [n, n]}) for n in range(1, 60)]
    whole = sums_of(*blobs).by(str)
    monkeypatch.setattr("aggregator.profiles.column_sums._SUM_AT_ROWS", 10)
    assert sums_of(*blobs).by(str) == whole


@pytest.mark.parametrize(
    ("data", "ends", "damaged", "samples"),
    [
        (True, True, 0, {"complete": 4}),
        (True, False, 1, {}),
        (False, True, 1, {}),
        (False, False, 1, {}),
    ],
)
def test_damaged_blobs_are_counted_once(data, ends, damaged, samples):
    sections = [Section(3, 19_000, np.array([1]), np.array([6]))]
    row = StoredRow(
        1,
        0,
        6,
        0,
        10_000,
        encode_sections(sections) if data else b"damaged",
        blob({"complete": [0, 4]}) if ends else b"damaged",
    )
    sums = SampleSums()
    sums.add(open_rows([row]))
    _, totals = sums.finish()
    assert (totals.damaged_blobs, totals.stack_ends.samples) == (damaged, samples)
    assert totals.lost == (0 if data else 6)


def test_a_series_takes_few_bytes():
    # 50 services with nearly whole stacks: what docs/decisions/0013 counts on.
    random = np.random.default_rng(4)
    samples = {
        "complete": random.integers(1, 200, 50),
        "truncated": random.integers(0, 2, 50),
        "no_rows": random.integers(0, 2, 50),
    }
    ids = random.choice(5_000, 50, replace=False).tolist()
    assert len(encode_ends(make_ends(samples, 19_000, ids))) < 5 * 50


def test_ends_of_python_parts_are_summed_apart():
    sums = sums_of(
        blob({"complete": [90, 5]}),
        python_blob({"complete": [70, 5], "off": [20, 0]}),
        python_blob({"complete": [10, 0], "read_fault": [0, 1]}),
    )
    ends = sums.of(None)
    assert (ends.samples, ends.total) == ({"complete": 95}, 95)
    assert ends.python == {"complete": 85, "off": 20, "read_fault": 1}
    assert ends.python_complete_share == round(85 / 106, 6)
    assert sums.of(lambda series_id: series_id == 3).python == {"complete": 5, "read_fault": 1}
    assert sums_of(blob({"complete": [1, 0]})).of(None).python_complete_share is None
