"""The allocator of extents: first fit, grace, merging, shards; and a long random run."""

import random
from itertools import pairwise

import pytest

from node_agent.unwind.arena import Arena, Extent

GRACE_S = 2.0


def make(limit: int = 100, shard: int = 10) -> Arena:
    return Arena(shard, limit, GRACE_S)


def test_extents_come_from_the_low_end_and_shards_only_as_needed() -> None:
    arena = make()
    assert arena.shards == 0
    assert arena.allocate(4) == Extent(0, 4)
    assert (arena.used, arena.shards) == (4, 1)
    assert arena.allocate(6) == Extent(4, 6)
    assert arena.shards == 1
    assert arena.allocate(15) == Extent(10, 15)  # crosses into a third
    assert (arena.used, arena.shards) == (25, 3)


@pytest.mark.parametrize(("limit", "asked"), [(0, 1), (10, 11), (100, 101)])
def test_what_does_not_fit_is_no_error(limit: int, asked: int) -> None:
    arena = make(limit)
    assert arena.allocate(asked) is None
    assert (arena.used, arena.shards) == (0, 0)


@pytest.mark.parametrize("count", [0, -1])
def test_an_empty_extent_is_a_mistake(count: int) -> None:
    with pytest.raises(ValueError, match="extent"):
        make().allocate(count)


def test_a_retired_extent_is_used_again_only_after_the_grace() -> None:
    arena = make(limit=10)
    whole = arena.allocate(10)
    assert whole is not None
    arena.retire(whole, 5.0)
    assert not arena.reclaim(5.0 + GRACE_S - 0.01)
    assert arena.allocate(1) is None
    assert (arena.used, arena.retired) == (10, 10)
    assert arena.reclaim(5.0 + GRACE_S)
    assert (arena.used, arena.retired) == (0, 0)
    assert arena.allocate(10) == whole


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (0, 2, 1), (1, 0, 2), (1, 2, 0)])
def test_neighbours_merge_in_whatever_order_they_are_freed(order: tuple[int, ...]) -> None:
    arena = make(limit=30)
    extents = [arena.allocate(10) for _ in range(3)]
    for index in order:
        extent = extents[index]
        assert extent is not None
        arena.retire(extent, 0.0)
        arena.reclaim(GRACE_S)
    assert arena.allocate(30) == Extent(0, 30)


def test_a_hole_is_filled_first_when_it_is_large_enough() -> None:
    arena = make(limit=40)
    first, hole, last = (arena.allocate(10) for _ in range(3))
    assert first and hole and last
    arena.retire(hole, 0.0)
    arena.reclaim(GRACE_S)
    assert arena.allocate(11) is None
    assert arena.allocate(5) == Extent(10, 5)
    assert arena.allocate(10) == Extent(30, 10)
    assert arena.allocate(5) == Extent(15, 5)


def test_shards_at_the_high_end_are_given_back() -> None:
    arena = make()
    low, high = arena.allocate(12), arena.allocate(50)
    assert low and high
    assert arena.shards == 7
    assert arena.trim() == 0
    arena.retire(high, 0.0)
    arena.reclaim(GRACE_S)
    assert arena.trim() == 5
    assert arena.shards == 2
    arena.retire(low, 0.0)
    arena.reclaim(GRACE_S)
    assert arena.trim() == 2
    assert arena.shards == 0


def test_a_full_arena_keeps_all_its_shards() -> None:
    arena = make()
    arena.allocate(100)
    assert arena.trim() == 0
    assert arena.shards == 10


def test_room_to_come_is_seen() -> None:
    arena = make(limit=30)
    first, second = arena.allocate(10), arena.allocate(10)
    assert first and second
    assert not arena.could_hold(11)
    arena.retire(second, 0.0)
    assert arena.could_hold(20)
    assert not arena.could_hold(21)
    arena.retire(first, 0.0)
    assert arena.could_hold(30)


def test_no_two_extents_ever_overlap() -> None:
    source = random.Random(7)
    arena = make(limit=1000, shard=64)
    held: list[Extent] = []
    now = 0.0
    refused = 0
    for _ in range(3000):
        now += source.random()
        arena.reclaim(now)
        if held and source.random() < 0.48:
            arena.retire(held.pop(source.randrange(len(held))), now)
        else:
            extent = arena.allocate(source.randint(1, 90))
            if extent is None:
                refused += 1
            else:
                held.append(extent)
        spans = sorted(held)
        assert all(a.end <= b.first for a, b in pairwise(spans))
        assert all(span.first >= 0 and span.end <= 1000 for span in spans)
        assert arena.used == sum(span.length for span in held) + arena.retired
        assert arena.shards * 64 >= max((span.end for span in spans), default=0)
    assert refused > 0
    for extent in held:
        arena.retire(extent, now)
    arena.reclaim(now + GRACE_S)
    assert arena.allocate(1000) == Extent(0, 1000)
