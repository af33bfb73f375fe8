from types import SimpleNamespace

import numpy as np
import pytest

from aggregator.flamegraph.arrange import arrange
from aggregator.flamegraph.graph import fold
from aggregator.flamegraph.prune import prune
from aggregator.profiles.dictionary import Dictionary
from aggregator.profiles.frame_table import FrameRow

SERVICES = ["nginx", "cron"]


def make_dictionary(stacks, frames):
    """A dictionary of {stack id: frame ids} and {frame id: (function, module)}."""
    dictionary = Dictionary()
    rows = [(id_, np.array(ids, "<u4").tobytes()) for id_, ids in stacks.items()]
    dictionary.add_stacks(list(stacks), rows, 0.0)
    dictionary.frames.update(
        [
            FrameRow(id_, id_ * 16, function, None, None, True, len(module), 0, b"\1" * 20, module)
            for id_, (function, module) in frames.items()
        ],
        0.0,
    )
    return dictionary


def make_folded(dictionary, entries):
    """Fold [(service index, stack id, weight)]."""
    service, stack, weight = (np.array(column, np.int64) for column in zip(*entries, strict=True))
    levels = dictionary.tree.totals(service, dictionary.leaves(stack), weight)
    return fold(levels, SERVICES, dictionary)


def check_shape(graph):
    """What every answer has to hold, whatever is in it."""
    nodes = len(graph.function)
    parent, total, level = graph.parent, graph.total, graph.level
    assert parent[0] == -1 and level[0] == 0
    assert np.all(parent[1:] < np.arange(1, nodes))
    assert np.all(np.diff(parent) >= 0), "siblings are adjacent, in the order of their parents"
    assert np.all(level[1:] == level[parent[1:]] + 1)
    children = np.zeros(nodes, np.int64)
    np.add.at(children, parent[1:], total[1:])
    assert np.array_equal(total, graph.self_ + children)
    keys = [(graph.functions[f].name, graph.functions[f].module) for f in graph.function.tolist()]
    for node in range(2, nodes):
        if parent[node] == parent[node - 1]:
            assert keys[node - 1] <= keys[node]


@pytest.fixture
def small():
    # Frames 1 and 2 are both `main` in `app`; 3 is `main` in another module.
    frames = {
        1: ("main", "app"),
        2: ("main", "app"),
        3: ("main", "lib"),
        4: ("work", "app"),
        5: (None, "lib"),
    }
    stacks = {10: [1, 4], 11: [2, 4, 4], 12: [3], 13: [1, 5], 14: [2]}
    return make_dictionary(stacks, frames)


def test_frames_of_one_function_merge_and_recursion_stays(small):
    entries = [(0, 10, 5), (0, 11, 7), (0, 12, 2), (1, 13, 1), (0, 14, 3), (0, 99, 4)]
    graph = arrange(make_folded(small, entries), small.frames)
    check_shape(graph)
    by_module = [
        (graph.functions[f].name, graph.functions[f].module, graph.functions[f].kind, t, s)
        for f, t, s in zip(
            graph.function.tolist(), graph.total.tolist(), graph.self_.tolist(), strict=True
        )
    ]
    assert by_module == [
        ("all", "", "process", 22, 0),
        ("cron", "", "process", 1, 0),
        ("nginx", "", "process", 21, 0),
        ("main", "app", "native", 1, 0),
        ("[undefined]", "", "unknown", 4, 4),
        ("main", "app", "native", 15, 3),
        ("main", "lib", "native", 2, 2),
        ("lib+0x50", "lib", "unknown", 1, 1),
        ("work", "app", "native", 12, 5),
        ("work", "app", "native", 7, 7),
    ]


def test_share_of_frames_without_a_symbol_is_weighted(small):
    folded = make_folded(small, [(0, 13, 3), (0, 12, 4)])  # of 3+3+4 frame weights 3 are unnamed
    assert folded.unnamed_share == pytest.approx(0.3)


def test_nothing_gives_the_root_alone():
    empty = Dictionary()
    graph = arrange(fold([], [], empty), empty.frames)
    check_shape(graph)
    assert graph.total.tolist() == [0]
    assert graph.functions[graph.function[0]].name == "all"


def shape(graph):
    return list(
        zip(graph.function.tolist(), graph.parent.tolist(), graph.total.tolist(), strict=True)
    )


def random_graph(seed, max_nodes=None):
    random = np.random.default_rng(seed)
    frames = {n: (f"f{n % 23}", f"m{n % 3}") for n in range(1, 60)}
    stacks = {n: random.integers(1, 60, random.integers(1, 12)).tolist() for n in range(1, 300)}
    dictionary = make_dictionary(stacks, frames)
    entries = [
        (int(random.integers(2)), n, int(random.integers(1, 1000) ** 3)) for n in range(1, 300)
    ]
    folded = make_folded(dictionary, entries)
    if max_nodes is not None:
        folded = prune(folded, max_nodes)
    return SimpleNamespace(
        graph=arrange(folded, dictionary.frames),
        entries=entries,
        stacks=stacks,
        frames=frames,
    )


@pytest.mark.parametrize("seed", range(4))
def test_fold_agrees_with_nested_dictionaries(seed):
    case = random_graph(seed)
    expected: dict[tuple, list[int]] = {}
    for service, stack, weight in case.entries:
        names = [("all", ""), (SERVICES[service], "")]
        names += [case.frames[frame] for frame in case.stacks[stack]]
        for length in range(1, len(names) + 1):
            node = expected.setdefault(tuple(names[:length]), [0, 0])
            node[0] += weight
        node[1] += weight
    check_shape(case.graph)
    found, known = {}, []
    for node in range(len(case.graph.function)):
        function = case.graph.functions[case.graph.function[node]]
        parent = int(case.graph.parent[node])
        known.append((*(known[parent] if parent >= 0 else ()), (function.name, function.module)))
        found[known[-1]] = [int(case.graph.total[node]), int(case.graph.self_[node])]
    assert found == expected
    assert len(found) == len(case.graph.function)


@pytest.mark.parametrize("max_nodes", [1, 2, 3, 4, 5, 10, 50, 100, 333, 1000])
def test_prune_keeps_the_heaviest_and_the_sums(max_nodes):
    whole, pruned = random_graph(7).graph, random_graph(7, max_nodes).graph
    check_shape(pruned)
    assert len(pruned.function) <= max(2, max_nodes)
    assert pruned.total[0] == whole.total[0]
    others = [
        node
        for node, function in enumerate(pruned.function.tolist())
        if pruned.functions[function].name == "(other)"
    ]
    kept = sorted(np.delete(pruned.total, others).tolist(), reverse=True)
    assert kept == sorted(whole.total.tolist(), reverse=True)[: len(kept)]
    assert pruned.cut_nodes == len(whole.total) - len(kept)
    # One more node would not have fitted: it and its "(other)" take at most two places.
    assert len(pruned.function) >= max_nodes - 1
    assert len({int(pruned.parent[node]) for node in others}) == len(others)


def test_prune_leaves_a_small_graph_alone():
    whole, same = random_graph(7).graph, random_graph(7, 200_000).graph
    assert same.cut_nodes == 0
    assert shape(whole) == shape(same)
