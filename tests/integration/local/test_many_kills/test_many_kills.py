"""From the moment a batch is in the spool it is counted exactly once, through any kill.

Sampler, shipper, aggregator and a Postgres with the settings of `flamefleet up` (with fsync) are
killed at random moments, half of the time just as the shipper delivers; see conftest.py.
"""

import random
import time
from typing import Any

import pytest

from aggregator.local.postgres import Postgres
from node_agent.spool import BatchEntry

AIM_S = 3.0  # longer than the shipper sleeps; without a delivery the kill comes anyway


def stored(postgres: Postgres) -> dict[BatchEntry, int]:
    """Samples of every batch at the centre, where each is one row and none counts as lost."""
    with postgres.connect("flamefleet") as connection:
        rows = connection.execute(
            "SELECT replace(runs.run::text, '-', ''), part & 4294967295, samples"
            " FROM node_prof JOIN runs ON runs.id = part >> 32 WHERE tier_s = 10"
        ).fetchall()
        (count,) = connection.execute("SELECT count(*) FROM node_prof").fetchone()
        (lost,) = connection.execute("SELECT sum(lost_batches)::bigint FROM nodes").fetchone()
        high = connection.execute("SELECT replace(run::text, '-', ''), high_water FROM runs")
        high_water = dict(high.fetchall())
    found = {BatchEntry(run, sequence): samples for run, sequence, samples in rows}
    assert len(found) == len(rows) == count
    assert lost == 0
    assert high_water == {run: max(e.sequence for e in found if e.run == run) for run, _ in found}
    return found


def kill_all_once(pipeline: Any, chance: random.Random) -> None:
    """Kill each part: any one first, while it works; the others in its aftermath.

    Then the shipper goes last, in its waiting, its return or the delivery of what has gathered.
    """
    first, *others = chance.sample(list(pipeline.kills), len(pipeline.kills))
    others.sort(key="shipper".__eq__)
    if chance.random() < 0.5:
        pipeline.witness.opened.clear()
        pipeline.witness.opened.wait(AIM_S)
        time.sleep(chance.uniform(0, 0.03))
    else:
        time.sleep(chance.uniform(0, 0.6))
    pipeline.kill(first)
    for name in others:
        time.sleep(chance.uniform(0, 2.5 if name == "shipper" else 0.25))
        pipeline.kill(name)


@pytest.mark.parametrize(
    "times",
    [
        pytest.param(20, marks=pytest.mark.timeout(1800)),
        pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(7200)]),
    ],
)
def test_every_batch_counts_once_through_many_kills(pipeline: Any, times: int) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # shown when the test fails
    chance = random.Random(seed)
    for name in ("aggregator", "shipper", "sampler"):
        pipeline.start(name)
    pipeline.wait_delivered()

    # WHEN every part is killed again and again, and between two times something gets through
    for _ in range(times):
        kill_all_once(pipeline, chance)
        pipeline.wait_delivered()
    pipeline.drain()
    counted = stored(pipeline.postgres)
    pipeline.stop()

    # THEN the centre has every batch that was ever in the spool, once, with all its samples
    assert pipeline.kills == dict.fromkeys(pipeline.kills, times)
    assert pipeline.witness.error is None
    written = pipeline.witness.samples()
    assert set(written) == pipeline.witness.seen
    assert counted == written
    assert len({entry.run for entry in written}) > times
    assert sum(written.values()) > 0
    assert not list((pipeline.spool.root / "refused").iterdir())
