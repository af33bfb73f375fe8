"""An interval that becomes too large for memory ends before its time, and loses nothing by it."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from node_agent.spool import Spool
from wire.codec import decode
from wire.schema import Batch, Definitions

INTERVAL_S = 3600.0
# So few stacks are seen on any machine that runs tests.
RUN = """
import sys
from pathlib import Path
from node_agent.config import load_config
from node_agent.sampler import intake, run_sampler

intake.MAX_STACKS = 10
overrides = {"name": "web-1", "preset": "debug", "interval_s": float(sys.argv[2])}
overrides |= {"budget_percent": 100, "budget_user_percent": 100, "spool_dir": Path(sys.argv[1])}
sys.exit(run_sampler(load_config(None, {}, overrides)))
"""
LIMIT_S = 300


@pytest.fixture
def sampler(spool: Spool) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", RUN, spool.root, str(INTERVAL_S)])
    yield process
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT_S) == 0


@pytest.mark.timeout(3 * LIMIT_S)
def test_an_interval_with_too_many_stacks_ends_early_and_whole(
    spool: Spool, sampler: subprocess.Popen[bytes]
) -> None:
    limit_s = time.monotonic() + LIMIT_S
    while len(paths := sorted(spool.root.glob("batches/*.batch"))) < 3:
        assert sampler.poll() is None
        assert time.monotonic() < limit_s, "three batches before the first interval's time is over"
        time.sleep(0.2)

    batches, defined = [], set()
    for path in paths:
        batches.append(decode(path.read_bytes(), Batch))
        beside = path.with_suffix(".defs")
        if beside.exists():
            hashes = decode(beside.read_bytes(), Definitions).stack_hashes
            defined |= {hashes[at : at + 16] for at in range(0, len(hashes), 16)}
        named = batches[-1].stack_hashes
        assert {named[at : at + 16] for at in range(0, len(named), 16)} <= defined
    assert all(batch.duration_ns < INTERVAL_S * 1e9 / 2 for batch in batches)
    # One goes on where the other ended.
    for before, after in pairwise(batches):
        assert after.sequence == before.sequence + 1
        assert abs(after.start_ns - before.start_ns - before.duration_ns) < 1e9
