"""The governor in a real sampler: a budget that nothing fits into ends in a pause."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from node_agent.spool import Spool
from wire.codec import decode
from wire.schema import Batch

RUN = """
import sys
from pathlib import Path
from node_agent.config import load_config
from node_agent.sampler import run_sampler
overrides = {"name": "web-1", "preset": "debug", "interval_s": 0.5, "budget_percent": 0.001}
overrides["spool_dir"] = Path(sys.argv[1])
sys.exit(run_sampler(load_config(None, {}, overrides)))
"""


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool")
    spool.create()
    return spool


@pytest.fixture
def sampler(spool: Spool, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path / "spool")], stderr=subprocess.PIPE, text=True
    )
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


@pytest.fixture
def batches(tmp_path: Path) -> Callable[[], list[Batch]]:
    def read() -> list[Batch]:
        paths = sorted((tmp_path / "spool" / "batches").glob("*.batch"))
        return [decode(path.read_bytes(), Batch) for path in paths]

    return read


def test_a_budget_that_nothing_fits_into_ends_in_a_pause(
    spool: Spool, sampler: subprocess.Popen[str], batches: Callable[[], list[Batch]]
) -> None:
    def status() -> dict[str, Any]:
        return spool.read_status("sampler") or {}

    deadline = time.monotonic() + 90
    while not (batches() and "paused" in batches()[-1].lost) and time.monotonic() < deadline:
        time.sleep(0.1)
    found, shown = batches(), status()
    sampler.send_signal(signal.SIGTERM)
    log = sampler.communicate(timeout=60)[1]

    assert sampler.returncode == 0
    rates = [batch.rate_millihertz for batch in found]
    assert rates == sorted(rates, reverse=True)
    assert (rates[0], rates[-1]) == (199_000, 11_000)
    assert found[-1].lost["paused"] > 0
    assert found[-1].counts == b""
    assert shown["shed"] == ["sampling (paused)"]
    assert [step["reason"] for step in shown["governor"]] == ["cpu", "cpu"]
    # each step once in the log, and as a fact of the batches behind it
    for step in shown["governor"]:
        assert log.count(f"governor: {step['words']}\n") == 1
    assert found[-1].facts["governor"].startswith(shown["governor"][-1]["words"])
    assert "governor" not in found[0].facts
