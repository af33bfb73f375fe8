"""How many machines send as one node.

A sampler's start is a run, and a shipper delivers run by run, the oldest first: batches of an
earlier run never come after those of a later one. Where the batches of two runs come by turns, two
machines have the same name and token. The aggregator's clock alone decides, so a wrong clock of a
node, a spool that was full or a restart is no clone.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

WINDOW_S = 600.0  # runs that were heard of within it
# SQL: runs of the last WINDOW_S, of nodes with more than one.
RECENT_RUNS = f"""
    SELECT node_id, first_s, last_s FROM (
        SELECT node_id, extract(epoch FROM started_at)::float8 AS first_s,
            extract(epoch FROM last_batch_at)::float8 AS last_s,
            count(*) OVER (PARTITION BY node_id) AS runs
        FROM runs WHERE last_batch_at > now() - make_interval(secs => {WINDOW_S})
    ) AS recent WHERE runs > 1 ORDER BY node_id
"""


def count_machines(runs: Iterable[Sequence[Any]]) -> dict[int, int]:
    """The number of machines of each node that has more than one, from its runs: (node, first and
    last arrival of a batch in seconds), by node. Pure.

    That is the largest number of runs that were under way at the same time. Runs that touch follow
    each other.
    """
    machines = {}
    for node_id, group in groupby(runs, lambda run: run[0]):
        events = []
        for _, first_s, last_s in group:
            events += [(first_s, 1), (last_s, -1)]
        most = under_way = 0
        for _, change in sorted(events):  # an end comes before a start of the same time
            under_way += change
            most = max(most, under_way)
        if most > 1:
            machines[node_id] = most
    return machines
