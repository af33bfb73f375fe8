"""What functions used, from the whole graph; what is cut away stays in reach of a zoom."""

import numpy as np
import pytest

from aggregator.flamegraph.arrange import arrange
from aggregator.flamegraph.graph import fold
from aggregator.flamegraph.identity import ROOT_PATH, extend_paths, function_id
from aggregator.flamegraph.prune import prune, rank_zoomed
from aggregator.flamegraph.summary import summarize
from aggregator.profiles.dictionary import Dictionary
from aggregator.profiles.frame_table import FrameRow
from wire.schema import ModuleKind

SERVICES = ["web", "cron"]


def make_dictionary(stacks, frames):
    """A dictionary of {stack id: frame ids} and {frame id: changes to a row}."""
    dictionary = Dictionary()
    rows = [(id_, np.array(ids, "<u4").tobytes()) for id_, ids in stacks.items()]
    dictionary.add_stacks(list(stacks), rows, 0.0)
    usual = {
        "function": None,
        "file": None,
        "line": None,
        "resolved": True,
        "module_id": 1,
        "kind": ModuleKind.NATIVE,
        "build_id": b"\1" * 20,
        "module": "app",
    }
    dictionary.frames.update(
        [FrameRow(id=id_, offset=id_ * 16, **{**usual, **row}) for id_, row in frames.items()], 0.0
    )
    return dictionary


def make_folded(dictionary, entries):
    """Fold [(service index, stack id, weight, count)]."""
    columns = (np.array(column, np.int64) for column in zip(*entries, strict=True))
    service, stack, weight, count = columns
    leaves = dictionary.leaves(stack)
    levels = dictionary.tree.totals(service, leaves, weight, weight.astype(float) ** 2 / count)
    return fold(levels, SERVICES, dictionary)


def random_case(seed):
    random = np.random.default_rng(seed)
    frames = {n: {"function": f"f{n % 17}"} for n in range(1, 50)}
    frames |= {n: {"module": f"m{n % 2}"} for n in range(50, 60)}  # without a name
    stacks = {n: random.integers(1, 60, random.integers(1, 14)).tolist() for n in range(1, 250)}
    entries = [
        (int(random.integers(2)), n, int(random.integers(1, 900) ** 2), int(random.integers(1, 9)))
        for n in range(1, 250)
    ]
    dictionary = make_dictionary(stacks, frames)
    return dictionary, entries, stacks, make_folded(dictionary, entries)


@pytest.mark.parametrize("seed", range(4))
def test_functions_and_rows_agree_with_sums_over_the_stacks(seed):
    dictionary, entries, stacks, folded = random_case(seed)

    def names(stack):
        return [f"f{n % 17}" if n < 50 else f"m{n % 2}+0x{n * 16:x}" for n in stacks[stack]]

    def rows(stack):
        return [f"f{n % 17}" if n < 50 else f"m{n % 2}" for n in stacks[stack]]

    def expected(names_of):
        sums: dict[str, list[float]] = {}
        for _, stack, weight, count in entries:
            *_, leaf = path = names_of(stack)
            for name in set(path):
                one = sums.setdefault(name, [0, 0, 0, 0])
                one[0] += weight
                one[1] += weight**2 / count
            sums[leaf][2] += weight
            sums[leaf][3] += weight**2 / count
        return {name: pytest.approx(one) for name, one in sums.items()}

    functions = dictionary.frames.functions
    summary = summarize(folded, functions, 1_000)
    found, found_rows = {}, {}
    every = sorted({*summary.by_function.keys.tolist(), *summary.by_row.keys.tolist()})
    sums = summary.sums(np.array(every))
    for i, code in enumerate(every):
        columns = (sums.total, sums.total_square, sums.self_, sums.self_square)
        one = [float(column[i]) for column in columns]
        if code >= summary.first_group:
            found_rows[summary.groups[code - summary.first_group].module] = one
        elif code >= folded.shift:
            name = folded.function_of(code, functions).name
            found[name] = one
            if code not in summary.group_of:
                found_rows[name] = one
    assert found == expected(names)
    assert found_rows == expected(rows)
    assert summary.rows == len(found_rows)
    assert sum(kind.self_ for kind in summary.kinds) == folded.total[0]
    assert {kind.kind for kind in summary.kinds} == {"native", "unknown"}


def test_the_table_has_functions_of_which_no_node_is_drawn():
    # malloc has 90 % of the time, in a thousand small places.
    stacks = {n: [n, 9_999] for n in range(1, 1_001)}
    frames = {n: {"function": f"caller {n}"} for n in range(1, 1_001)}
    dictionary = make_dictionary(stacks, {**frames, 9_999: {"function": "malloc"}})
    folded = make_folded(dictionary, [(0, n, 100 + n % 7, 1) for n in stacks])
    functions = dictionary.frames.functions
    summary = summarize(folded, functions, 5)
    graph = arrange(prune(folded, 10), dictionary.frames, summary.listed, summary.groups)
    names = [function.name for function in graph.functions]
    assert names.index("malloc") not in graph.function
    sums = summary.sums(graph.codes)
    assert sums.self_[names.index("malloc")] == folded.total[0]
    assert sums.nodes[names.index("malloc")] == 1_000
    assert graph.cut_ns == sum(
        graph.total[i] for i, f in enumerate(graph.function) if names[f] == "(other)"
    )
    assert graph.cut_ns / folded.total[0] > 0.99
    assert summary.rows == 1_001
    assert len(summary.listed) <= 10


def paths_of(graph):
    """The path of each node, made as the page makes it."""
    ids = [function_id(function) for function in graph.functions]
    paths = [ROOT_PATH]
    for function, parent in zip(
        graph.function[1:].tolist(), graph.parent[1:].tolist(), strict=True
    ):
        above, own = np.array([paths[parent]], np.uint64), np.array([ids[function]], np.uint64)
        paths.append(int(extend_paths(above, own)[0]))
    return paths


def names_to(graph, node):
    path = []
    while node >= 0:
        path.append(graph.functions[graph.function[node]].name)
        node = int(graph.parent[node])
    return path[::-1]


def test_zooming_in_reaches_every_frame():
    dictionary, _, _, folded = random_case(3)
    frames = dictionary.frames
    whole = arrange(folded, frames)
    reached = set()
    asked = [0]  # paths to zoom into, from the root on
    seen = {0}
    while asked:
        zoom = asked.pop()
        first = rank_zoomed(folded, zoom, frames.functions) if zoom else None
        graph = arrange(prune(folded, 60, first), frames)
        assert len(graph.function) <= 60
        assert graph.total[0] == whole.total[0]
        for node, path in enumerate(paths_of(graph)):
            if graph.functions[graph.function[node]].kind == "other":
                continue
            reached.add(tuple(names_to(graph, node)))
            if path not in seen:
                seen.add(path)
                asked.append(path)
    assert reached == {tuple(names_to(whole, node)) for node in range(len(whole.function))}


def test_a_zoom_keeps_its_path_and_what_is_below_it_first():
    dictionary, _, _, folded = random_case(1)
    frames = dictionary.frames
    whole = arrange(folded, frames)
    paths = paths_of(whole)
    node = max(i for i in range(len(paths)) if whole.level[i] == 4)
    first = rank_zoomed(folded, paths[node], frames.functions)
    graph = arrange(prune(folded, 40, first), frames)
    found = paths_of(graph)
    for inside in range(len(paths)):
        above = inside
        while above > node:
            above = int(whole.parent[above])
        if above == node:
            assert paths[inside] in found
    assert rank_zoomed(folded, 12_345, frames.functions) is None


def test_functions_of_one_name_in_different_files_or_modules_are_different():
    python = {"kind": ModuleKind.NAMED, "build_id": b"python", "module": "python"}
    frames = {
        1: {"function": "run", "file": "/a.py", **python},
        2: {"function": "run", "file": "/b.py", **python},
        3: {"function": "run"},
        4: {"function": "run", "module": "lib"},
        5: {},
        6: {"build_id": b"\2" * 20},
    }
    dictionary = make_dictionary({n: [n] for n in frames}, frames)
    dictionary.frames.update(
        [
            FrameRow(6, 5 * 16, None, None, None, True, 2, ModuleKind.NATIVE, b"\2" * 20, "app"),
        ],
        0.0,
    )
    graph = arrange(make_folded(dictionary, [(0, n, n, 1) for n in frames]), dictionary.frames)
    assert len({function_id(function) for function in graph.functions}) == len(graph.functions)
    assert len(set(paths_of(graph))) == 3 + len(frames)  # all and both services
