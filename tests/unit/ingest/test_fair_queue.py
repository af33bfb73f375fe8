"""Batches are taken from nodes in turn."""

import asyncio

from aggregator.ingest.fair_queue import FairQueue


def filled(*items):
    queue = FairQueue()
    for node_id, rows, item in items:
        queue.put(node_id, rows, item)
    return queue


async def test_one_of_each_node_then_another():
    queue = filled(*((1, 1, f"a{n}") for n in range(5)), (2, 1, "b0"), (3, 1, "c0"), (2, 1, "b1"))

    assert await queue.take(2, 100) == ["a0", "b0"]
    assert await queue.take(9, 100) == ["c0", "a1", "b1"]
    assert (len(queue), queue.count_of(1), queue.count_of(2), queue.count_of(3)) == (3, 3, 0, 0)
    assert await queue.take(9, 100) == ["a2"]
    queue.put(2, 1, "b2")
    assert await queue.take(1, 100) == ["a3"]
    assert await queue.take(9, 100) == ["b2", "a4"]
    assert (len(queue), queue.rows) == (0, 0)


async def test_rows_are_bounded_but_for_one_alone():
    queue = filled((1, 60, "a"), (2, 50, "b"), (3, 500, "c"), (4, 1, "d"))

    assert await queue.take(9, 100) == ["a"]
    assert await queue.take(9, 100) == ["b"]
    assert await queue.take(9, 100) == ["c"]
    assert await queue.take(9, 100) == ["d"]


async def test_whoever_takes_waits_for_the_first():
    queue = FairQueue()
    taking = asyncio.create_task(queue.take(9, 100))
    await asyncio.sleep(0)
    assert not taking.done()
    queue.put(1, 5, "a")

    assert await taking == ["a"]
    assert queue.drain() == []
    queue.put(1, 5, "a")
    queue.put(1, 5, "b")
    queue.put(2, 5, "c")
    assert (queue.rows, queue.drain(), len(queue), queue.rows) == (15, ["a", "c", "b"], 0, 0)
