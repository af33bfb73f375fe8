import numpy as np
import pytest

from aggregator.profiles.columns import Column, SortedMap
from aggregator.profiles.grouping import group
from aggregator.profiles.prefix_tree import UNDEFINED, PrefixTree


def ints(values):
    return np.array(list(values), np.int64)


def add(tree, stacks):
    """Add {stack id: frames}."""
    frames = [frame for stack in stacks.values() for frame in stack]
    tree.add(ints(stacks), ints(len(stack) for stack in stacks.values()), ints(frames))


def reference(entries, stacks):
    """Total and self weight by (group, path), the slow and obvious way."""
    total, own = {}, {}
    for group_, stack_id, weight in entries:
        path = tuple(stacks[stack_id])
        own[group_, path] = own.get((group_, path), 0) + weight
        for length in range(1, len(path) + 1):
            key = (group_, path[:length])
            total[key] = total.get(key, 0) + weight
    return total, own


def flatten(tree, levels):
    """The same from the tree's levels, following parents."""
    total, own = {}, {}
    above = None
    for level in levels:
        keys = []
        for node, parent, all_, self_ in zip(
            level.nodes.tolist(),
            level.parent.tolist(),
            level.total.tolist(),
            level.self_.tolist(),
            strict=True,
        ):
            group_ = parent if above is None else above[parent][0]
            path = tuple(tree.path(node))
            assert above is None or above[parent][1] == path[:-1]
            keys.append((group_, path))
            assert (group_, path) not in total
            total[group_, path] = all_
            if self_:
                own[group_, path] = self_
        above = keys
    return total, own


def test_group_sums_are_exact_where_doubles_are_not():
    groups = group(ints([5, 3, 5, 3, 5]))
    assert groups.keys.tolist() == [3, 5]
    assert groups.index.tolist() == [1, 0, 1, 0, 1]
    assert groups.sums(ints([2**60, 1, 1, 2, 1])).tolist() == [3, 2**60 + 2]
    assert group(ints([])).sums(ints([])).tolist() == []


def test_sorted_map_finds_what_was_added_and_nothing_else():
    entries = SortedMap()
    assert entries.find(ints([1, 2])).tolist() == [-1, -1]
    entries.add(ints([50, 10]), ints([5, 1]))
    entries.add(ints([99, 30]), ints([9, 3]))
    assert entries.find(ints([99, 10, 11, 30, 50, 100, 0])).tolist() == [9, 1, -1, 3, 5, -1, -1]
    assert len(entries) == 4


def test_column_keeps_its_rows_when_it_grows():
    column = Column(np.int32)
    for start in range(0, 5000, 250):
        column.extend(np.arange(start, start + 250, dtype=np.int32))
    assert column.values.tolist() == list(range(5000))


def test_stacks_that_begin_alike_share_nodes():
    tree = PrefixTree()
    before = len(tree)
    add(tree, {1: [7, 8, 9], 2: [7, 8], 3: [7, 8, 10]})
    assert len(tree) - before == 4
    add(tree, {4: [7, 8, 9, 9], 2: [1, 1]})  # 2 is there already
    assert len(tree) - before == 5
    leaves = tree.leaves(ints([1, 2, 3, 4, 5]))
    assert [tree.path(leaf) for leaf in leaves[:4].tolist()] == [
        [7, 8, 9],
        [7, 8],
        [7, 8, 10],
        [7, 8, 9, 9],
    ]
    assert leaves[4] == -1


@pytest.mark.parametrize("seed", range(8))
def test_totals_agree_with_the_slow_reference(seed):
    random = np.random.default_rng(seed)
    tree, stacks = PrefixTree(), {}
    for _ in range(4):  # several bulks, so that new stacks meet nodes of earlier ones
        bulk = {}
        for stack_id in random.integers(1, 10**12, 60).tolist():
            bulk[stack_id] = random.integers(1, 4, random.integers(1, 9)).tolist()
        add(tree, bulk)
        stacks = {**bulk, **stacks}
    entries = [
        (
            int(random.integers(3)),
            int(random.choice(list(stacks))),
            int(random.integers(1, 1 << 58)),
        )
        for _ in range(30)
    ]
    leaves = tree.leaves(ints(stack for _, stack, _ in entries))
    levels = tree.totals(
        ints(group_ for group_, _, _ in entries), leaves, ints(weight for *_, weight in entries)
    )
    assert flatten(tree, levels) == reference(entries, stacks)


def test_totals_of_nothing():
    assert PrefixTree().totals(ints([]), ints([]), ints([])) == []


def test_undefined_stacks_end_at_a_node_of_their_own():
    tree = PrefixTree()
    add(tree, {1: [0 + 5]})
    leaves = tree.leaves(ints([1, 2]))
    leaves[leaves < 0] = UNDEFINED
    (level,) = tree.totals(ints([0, 0]), leaves, ints([3, 4]))
    assert dict(zip(tree.frames_of(level.nodes).tolist(), level.total.tolist(), strict=True)) == {
        0: 4,
        5: 3,
    }
