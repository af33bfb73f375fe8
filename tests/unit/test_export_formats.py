"""Folded and pprof of stored stacks; integration tests read pprof with the real tool."""

import gzip

import numpy as np
import pytest

from aggregator.export.folded import encode_graph
from aggregator.export.pprof import encode_stacks
from aggregator.flamegraph.arrange import arrange
from aggregator.flamegraph.graph import fold
from aggregator.profiles.codec import Section, encode_sections
from aggregator.profiles.dictionary import Dictionary
from aggregator.profiles.frame_table import FrameRow
from aggregator.profiles.reading import StoredRow
from aggregator.profiles.samples import SampleSums, list_stacks, open_rows
from aggregator.profiles.span import Span

SPAN = Span(600, 660, (600, 660), ())
SERVICES = {1: "shop;web", 2: "cron"}


@pytest.fixture
def dictionary():
    made = Dictionary()
    stacks = {10: [1, 2], 11: [1], 12: [1, 2, 2]}
    made.add_stacks([], [(i, np.array(f, "<u4").tobytes()) for i, f in stacks.items()], 0.0)
    made.frames.update(
        [
            FrameRow(1, 16, "main", "app.c", 3, True, 1, 0, b"\x01" * 20, "app"),
            FrameRow(2, 32, None, None, None, False, 1, 0, b"\x01" * 20, "app"),
        ],
        0.0,
    )
    return made


def list_samples(*rows):
    """Stacks of (series, rate, {stack: count})."""
    sums = SampleSums()
    for series_id, rate, counts in rows:
        ids = np.array(sorted(counts), np.int64)
        column = np.array([counts[i] for i in sorted(counts)], np.int64)
        blob = encode_sections([Section(series_id, rate, ids, column)])
        sums.add(open_rows([StoredRow(1, 600, sum(counts.values()), 0, 10_000, blob)]))
    return list_stacks(sums, SPAN, SERVICES.__getitem__, str)


def test_folded_lines_sum_up_to_everything(dictionary):
    stacks = list_samples((1, 10_000, {10: 3, 11: 1, 99: 1}), (2, 10_000, {12: 2}))
    leaves = dictionary.leaves(stacks.stack_ids)
    levels = dictionary.tree.totals(stacks.service_index, leaves, stacks.weights)
    graph = arrange(fold(levels, stacks.services, dictionary), dictionary.frames)
    assert encode_graph(graph).splitlines() == [
        "cron;main;app+0x20;app+0x20 200000000",
        "shop%3Bweb;[undefined] 100000000",
        "shop%3Bweb;main 100000000",
        "shop%3Bweb;main;app+0x20 300000000",
    ]


def test_pprof_holds_names_files_and_services_once(dictionary):
    stacks = list_samples((1, 10_000, {10: 3}), (1, 20_000, {10: 4}), (2, 10_000, {11: 1}))
    raw = gzip.decompress(encode_stacks(stacks, dictionary))
    for text in (b"main", b"app+0x20", b"app.c", b"shop;web", b"cron", b"01" * 20):
        assert raw.count(text) == 1, text


def test_pprof_keeps_the_sum_when_there_are_too_many_stacks(dictionary, monkeypatch):
    stacks = list_samples((1, 10_000, {10: 300, 11: 1, 99: 2}), (2, 10_000, {12: 4}))
    rows = []

    def keep(given, **_times):
        rows.extend(given)
        return b""

    monkeypatch.setattr("aggregator.export.pprof.encode_weighted_profile", keep)
    monkeypatch.setattr("aggregator.export.pprof.MAX_STACKS", 1)
    encode_stacks(stacks, dictionary)
    assert [([f.function for f in frames], *rest) for frames, *rest in rows] == [
        (["main", "app+0x20"], 300, 30 * 10**9, {"service": "shop;web"}),
        (["(other)"], 4, 4 * 10**8, {"service": "cron"}),
        (["(other)"], 3, 3 * 10**8, {"service": "shop;web"}),
    ]
