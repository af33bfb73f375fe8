"""From a decoded batch to int64 columns and sections."""

import numpy as np
import pytest

from aggregator.ingest.batches import (
    make_sections,
    prepare_batch,
    split_hashes,
)
from aggregator.ingest.errors import BadValueError
from aggregator.ingest.events import lost_by_reason
from aggregator.ingest.series import series_key
from wire.hashes import batch_digest
from wire.schema import Batch, Overhead, Series

NOW_NS = 1_795_368_600 * 10**9
A, B, C = b"\x80" + bytes(15), bytes(15) + b"\x01", b"\x80" + bytes(14) + b"\x01"


def u32(*values):
    return np.array(values, "<u4").tobytes()


def batch(**changes):
    fields = {
        "node": "web-1",
        "run": bytes(16),
        "sequence": 1,
        "start_ns": NOW_NS - 10**10,
        "duration_ns": 10**10,
        "rate_millihertz": 19_000,
        "collector": "cpu",
        "online_cpus": 2,
        "series": [Series({"service": "a"}), Series({"service": "b"})],
        "stack_hashes": A + B + C + A,
        "series_index": u32(0, 1, 0, 0),
        "counts": u32(1, 2, 4, 8),
        "lost": {"ring_full": 3, "stack_error": 4},
        "overhead": Overhead(0, 0, 0, 0, 0, 0, 0.0, 0.0),
        "agent_version": "0.1.0",
    }
    return Batch(**{**fields, **changes})


def prepare(received_ns=NOW_NS, sent_ns=None, **changes):
    return prepare_batch(batch(**changes), 7, received_ns, sent_ns)


def test_hashes_are_distinct_and_in_the_order_of_postgres():
    prepared = prepare()

    assert split_hashes(prepared.hashes) == [B, A, C]  # compared as unsigned bytes
    assert prepared.row_stack.tolist() == [1, 0, 2, 1]
    assert (prepared.samples, prepared.lost) == (15, 7)
    assert prepared.weight_ns == 15 * 10**9 // 19


def test_ends_of_stacks_follow_their_series():
    # The third series has no row, so it is left out of the columns.
    prepared = prepare(
        series=[Series({"service": name}) for name in "acb"],
        series_index=u32(0, 2, 0, 0),
        stack_ends={
            "complete": u32(9, 0, 1),
            "no_rows": u32(1, 0, 0),
            "word_of_2030": u32(2, 0, 0),
            "other": u32(0, 0, 1),
        },
    )
    assert {reason: column.tolist() for reason, column in prepared.stack_ends.items()} == {
        "complete": [9, 1],
        "no_rows": [1, 0],
        "other": [2, 1],
    }


def test_lost_samples_are_told_by_a_bounded_number_of_reasons():
    assert lost_by_reason({"ring_full": 3, "none": 0, "paused": 9}) == {"paused": 9, "ring_full": 3}
    assert lost_by_reason({"a\0b": 1, "": 2, "x" * 65: 3}) == {"other": 6}
    told = lost_by_reason({f"reason_{i}": 100 - i for i in range(40)})
    assert len(told) == 33
    assert told["other"] == sum(100 - i for i in range(32, 40))
    assert prepare(lost={"ring_full": 3}).lost_by_reason == {"ring_full": 3}


def test_more_ends_than_samples_are_left_out():
    good = prepare(stack_ends={"complete": u32(12, 2), "no_rows": u32(1, 0)})
    assert (len(good.stack_ends), good.dropped["stack_end"]) == (2, 0)
    for ends in (
        {"complete": u32(13, 0), "no_rows": u32(1, 0)},
        {"read_fault": u32(0, 2**32 - 1), "complete": u32(1, 1)},
    ):
        left = prepare(stack_ends=ends, python_ends={"complete": u32(1, 1)})
        assert (left.stack_ends, left.dropped["stack_end"]) == ({}, 2)
        assert left.python_ends
        left = prepare(python_ends=ends, stack_ends={"complete": u32(1, 1)})
        assert (left.python_ends, left.dropped["stack_end"]) == ({}, 2)
        assert left.stack_ends


def test_ends_of_python_parts_are_read_like_those_of_stacks():
    ends = {"complete": u32(9, 0), "no_thread_state": u32(1, 1), "word_of_2030": u32(0, 1)}
    found = prepare(python_ends=ends).python_ends
    assert {reason: column.tolist() for reason, column in found.items()} == {
        "complete": [9, 0],
        "no_thread_state": [1, 1],
        "other": [0, 1],
    }


def test_the_digest_does_not_cover_ends():
    ends = {"complete": u32(1, 1)}
    assert batch_digest(batch(stack_ends=ends)) == batch_digest(batch())
    assert batch_digest(batch(python_ends=ends)) == batch_digest(batch())


def test_sections_add_up_rows_of_one_stack_and_series():
    prepared = prepare()

    sections = make_sections(prepared, np.array([900, 5, 70], np.int64), [3, 2])

    found = [(s.series_id, s.ids.tolist(), s.counts.tolist()) for s in sections]
    assert found == [(2, [900], [2]), (3, [5, 70], [9, 4])]
    assert {s.rate_millihertz for s in sections} == {19_000}
    assert {s.ids.dtype for s in sections} == {s.counts.dtype for s in sections} == {np.dtype("i8")}


def test_series_with_the_same_id_become_one_section():
    prepared = prepare()

    [section] = make_sections(prepared, np.array([1, 2, 3], np.int64), [9, 9])

    assert (section.ids.tolist(), section.counts.tolist()) == ([1, 2, 3], [2, 9, 4])


def test_series_without_rows_are_not_kept():
    prepared = prepare(series_index=u32(1, 1, 1, 1))

    assert [key.service for key in prepared.series] == ["b"]
    assert prepared.row_series.tolist() == [0, 0, 0, 0]


def test_empty_batch():
    prepared = prepare(stack_hashes=b"", series_index=b"", counts=b"", series=[])

    assert (prepared.hashes, prepared.samples, prepared.weight_ns) == (b"", 0, 0)
    assert make_sections(prepared, np.zeros(0, np.int64), []) == []


def test_identity_of_labels():
    one = series_key({"service": "a", "version": "1", "unit": "ä"})

    assert one == series_key({"unit": "ä", "version": "1", "service": "a"})
    assert one.key_hash == bytes.fromhex("2bc5e2f379fe23427427512463a9c644")
    assert (one.service, one.version) == ("a", "1")
    assert one != series_key({"service": "a", "version": "1", "unit": "a"})
    assert series_key({"a": "b:c"}) != series_key({"a:b": "c"})
    assert (series_key({}).service, series_key({}).version) == ("", "")


def test_host_label_is_the_nodes_name_only():
    assert series_key({"service": "a", "host": "forged"}) == series_key({"service": "a"})


@pytest.mark.parametrize(
    "change",
    [
        {"start_ns": NOW_NS},
        {"duration_ns": 10**10 + 1},
        {"counts": u32(1, 2, 4, 9)},
        {"series_index": u32(0, 1, 0, 1)},
        {"stack_hashes": A + B + C + B},
    ],
)
def test_digest_tells_contents_apart(change):
    assert batch_digest(batch(**change)) != batch_digest(batch())


def test_digest_of_the_same_content_is_the_same():
    assert batch_digest(batch()) == batch_digest(batch(lost={}))
    assert len(batch_digest(batch())) == 16


@pytest.mark.parametrize(
    ("sent_ns", "start_ns", "offset_ms"),
    [
        (NOW_NS - 3_000_000_000, NOW_NS - 10**10, 3000),
        (NOW_NS + 2_000_000_000, NOW_NS - 10**10, -2000),
        (None, NOW_NS - 10**10, None),  # just ended, or waited: nobody can tell
        (None, NOW_NS - 10**12, None),
        (None, NOW_NS - 5 * 10**9, -5000),  # ends in the future, so the node's clock is ahead
    ],
)
def test_clock_offset(sent_ns, start_ns, offset_ms):
    assert prepare(sent_ns=sent_ns, start_ns=start_ns).clock_offset_ms == offset_ms


@pytest.mark.parametrize(
    "change",
    [
        {"counts": u32(1, 2, 4, 0)},
        {"series_index": u32(0, 1, 0, 2)},
        {"sequence": 2**32},
        {"counts": u32(2**32 - 1, 2, 4, 8)},  # more CPU than two CPUs had
        {"agent_version": "\0"},
        {"lost": {"a": 2**62}},
        {"overhead": Overhead(0, 0, 0, 0, -1, 0, 0.0, 0.0)},
        {"overhead": Overhead(0, 0, 0, 0, 0, 0, float("nan"), 0.0)},
        {"overhead": Overhead(0, 0, 0, 0, 0, 0, 0.0, 1e12)},
        {"overhead": Overhead(0, 0, 0, 0, 0, 0, 0.0, 0.0, event_latency_us=-1.0)},
        {"overhead": Overhead(0, 0, 0, 0, 0, 0, 0.0, 0.0, interrupt_ns=2**62)},
        {"overhead": Overhead(0, 0, 0, 0, 0, 0, 0.0, 0.0, python_sampler_cpu_ns=-1)},
    ],
)
def test_values_out_of_range(change):
    with pytest.raises(BadValueError):
        prepare(**change)
