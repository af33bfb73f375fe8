"""Functions that were inlined become nodes of their own, in every format."""

import gzip
from collections import defaultdict

import numpy as np
import pytest

from aggregator.export.folded import encode_graph
from aggregator.export.pprof import _frame
from aggregator.flamegraph.arrange import arrange
from aggregator.flamegraph.graph import fold
from aggregator.flamegraph.prune import prune
from aggregator.profiles.dictionary import Dictionary
from aggregator.profiles.frame_table import FrameRow
from wire.pprof import encode_profile

SERVICES = ["shop"]


def dictionary_of(stacks, frames):
    """{stack id: frame ids} and {frame id: [(function, file, line), ...] the outermost first}."""
    dictionary = Dictionary()
    rows = [(id_, np.array(ids, "<u4").tobytes()) for id_, ids in stacks.items()]
    dictionary.add_stacks(list(stacks), rows, 0.0)
    dictionary.frames.update(
        [
            FrameRow(
                *(id_, id_ * 16, *chain[-1], True, 1, 0, b"\1" * 20, "app"),
                [list(line) for line in chain[:-1]] or None,
            )
            for id_, chain in frames.items()
        ],
        0.0,
    )
    return dictionary


def folded_of(dictionary, weights):
    stack, weight = np.array(list(weights)), np.array(list(weights.values()))
    service = np.zeros(len(stack), np.int64)
    levels = dictionary.tree.totals(service, dictionary.leaves(stack), weight)
    return fold(levels, SERVICES, dictionary)


def lines_of(dictionary, weights):
    graph = arrange(folded_of(dictionary, weights), dictionary.frames)
    return dict(line.rsplit(" ", 1) for line in encode_graph(graph).splitlines())


def test_an_inlined_function_and_the_same_one_called_are_one_node():
    frames = {
        1: [("main", "a.c", 1)],
        2: [("outer", "a.c", 9), ("inner", "b.h", 3)],  # inner is inlined
        3: [("outer", "a.c", 10)],
        4: [("inner", "b.h", 4)],  # inner is called
        5: [("leaf", "c.c", 7)],
    }
    stacks = {10: [1, 2], 11: [1, 3, 4], 12: [1, 3], 13: [1, 2, 5], 14: [1, 3, 4, 5]}
    weights = {10: 1, 11: 2, 12: 4, 13: 8, 14: 16}
    dictionary = dictionary_of(stacks, frames)
    assert lines_of(dictionary, weights) == {
        "shop;main;outer": "4",
        "shop;main;outer;inner": "3",
        "shop;main;outer;inner;leaf": "24",
    }


def test_nodes_have_the_line_of_their_heaviest_frame():
    frames = {
        1: [("main", "a.c", 1)],
        2: [("main", "a.c", 2)],
        3: [("outer", "a.c", 9), ("inner", "b.h", 3)],
        4: [("outer", "a.c", 8), ("inner", "b.h", 5)],
    }
    dictionary = dictionary_of({10: [1, 3], 11: [2, 4], 12: [2]}, frames)
    graph = arrange(prune(folded_of(dictionary, {10: 5, 11: 3, 12: 1}), 100), dictionary.frames)
    places = {
        graph.functions[function].name: place
        for function, place in zip(graph.function.tolist(), graph.places, strict=True)
    }
    assert places == {
        "all": ("", 0),
        "shop": ("", 0),
        "main": ("a.c", 1),
        "outer": ("a.c", 9),
        "inner": ("b.h", 3),
    }


@pytest.mark.parametrize("seed", range(5))
def test_unfolding_agrees_with_nested_dictionaries(seed):
    random = np.random.default_rng(seed)
    frames = {
        id_: [(f"f{random.integers(6)}", "x.c", 1) for _ in range(random.integers(1, 5))]
        for id_ in range(1, 40)
    }
    stacks = {
        id_: random.integers(1, 40, random.integers(1, 9)).tolist() for id_ in range(100, 160)
    }
    weights = {id_: int(random.integers(1, 1_000)) for id_ in stacks}
    expected = defaultdict(int)
    for id_, ids in stacks.items():
        path = [line[0] for frame in ids for line in frames[frame]]
        expected[";".join(["shop", *path])] += weights[id_]
    found = lines_of(dictionary_of(stacks, frames), weights)
    assert {path: int(weight) for path, weight in found.items()} == expected


def test_a_pprof_location_has_a_line_for_each_function_the_innermost_first():
    dictionary = dictionary_of({10: [1]}, {1: [("outer", "a.c", 9), ("inner", "b.h", 3)]})
    number = dictionary.tree.path(int(dictionary.leaves(np.array([10]))[0]))[0]
    frame = _frame(dictionary.frames, number)
    assert (frame.function, frame.file, frame.line) == ("inner", "b.h", 3)
    assert [tuple(line) for line in frame.callers] == [("outer", "a.c", 9)]
    body = gzip.decompress(encode_profile([([frame], 1, {})], 1, 0, 1))
    # location: id 1, mapping 1, address 16, lines (function 1, line 3), (function 2, line 9)
    assert bytes.fromhex("2212 0801 1001 1810 220408011003 220408021009") in body


def test_expired_frames_are_read_again():
    dictionary = dictionary_of({10: [1]}, {1: [("old", "", 0)]})
    numbers = np.array(dictionary.tree.path(int(dictionary.leaves(np.array([10]))[0])))
    assert dictionary.frames.stale_ids(numbers, 1.0) == []
    dictionary.frames.expire()
    assert dictionary.frames.stale_ids(numbers, 1.0) == [1]
    assert dictionary.frames.stale_ids(np.zeros(1, np.int64), 1.0) == []
