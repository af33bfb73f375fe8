"""The wall clock jumps while the real collector and the spool go on."""

import time
from types import SimpleNamespace

import pytest

from node_agent.collectors import cpu
from node_agent.collectors.cpu import CpuCollector
from node_agent.config import load_config
from node_agent.sampler.intake import Intake
from node_agent.spool import Spool
from wire.codec import decode
from wire.schema import Batch, Overhead

HOUR_NS = 3600 * 10**9
COST = Overhead(0, 0, 0, 0, 0, 0, 0.0, 0.0)
STEPS_NS = (0, HOUR_NS, -HOUR_NS, 400 * 24 * HOUR_NS, -50 * 24 * HOUR_NS, 0)


def test_steps_change_the_start_and_never_the_duration(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step_ns = 0
    stepped = SimpleNamespace(
        time_ns=lambda: time.time_ns() + step_ns,
        monotonic_ns=time.monotonic_ns,
        monotonic=time.monotonic,
    )
    monkeypatch.setattr(cpu, "time", stepped)
    config = load_config(None, {}, {"name": "web-1", "spool_dir": tmp_path / "spool"})
    spool = Spool(config.spool_dir)
    spool.create()
    collector = CpuCollector(99, 1000, 1.0)
    intake = Intake(config, spool, {})
    before, before_monotonic = time.time_ns(), time.monotonic_ns()
    collector.start()
    started_ns = time.monotonic_ns()
    try:
        for step_ns in STEPS_NS:  # noqa: B007 - the clock reads it
            time.sleep(0.05)
            for raw in collector.poll():
                intake.add(raw)
            took_ns = time.monotonic_ns() - started_ns
            intake.put(collector.take_interval(), COST, 99, {})
    finally:
        collector.stop()
        intake.close()
    after, after_monotonic = time.time_ns(), time.monotonic_ns()

    batches = []
    for entry in spool.pending():
        file = spool.open_batch(entry)
        assert file is not None
        with file:
            batches.append(decode(file.read(), Batch))
    assert [batch.sequence for batch in batches] == list(range(1, len(STEPS_NS) + 1))
    # Together they cover the time there was: no gap, no overlap, whatever the clock said.
    assert all(batch.duration_ns >= 50 * 10**6 for batch in batches)
    assert took_ns <= sum(batch.duration_ns for batch in batches)
    assert sum(batch.duration_ns for batch in batches) <= after_monotonic - before_monotonic
    # An interval starts at the time of the clock when the one before it ended.
    for batch, was_ns in zip(batches, (0, *STEPS_NS), strict=False):
        assert before <= batch.start_ns - was_ns <= after
