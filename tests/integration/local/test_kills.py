"""Killing the shipper, the aggregator and Postgres loses no sample and counts none twice.

The truth is what the sampler wrote: the witness of conftest.py keeps every batch file, whose counts
are compared with the rows that Postgres holds in the end.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from aggregator.local.account import server_account
from aggregator.local.data_folder import DataFolder
from aggregator.local.postgres import Postgres, create_postgres
from aggregator.local.process import Process
from node_agent.spool import Spool

Row = tuple[str, int]  # run, sequence
PARTS = ("shipper", "aggregator", "postgres")  # on the samples' way, in its order


def in_spool(spool: Path) -> set[Row]:
    """Batches that wait to be delivered."""
    names = [file.stem.split("-") for file in (spool / "batches").glob("*.batch")]
    return {(run, int(sequence)) for run, sequence in names}


@contextmanager
def stored_in(folder: DataFolder, log: Path) -> Iterator[Postgres]:
    """The Postgres of a stopped `flamefleet up`."""
    postgres = create_postgres(folder.postgres, folder.sockets, server_account())
    with log.open("wb") as stream:
        process = Process(postgres.command(), stream)
    try:
        postgres.wait_ready(process)
        yield postgres
    finally:
        process.stop()


@dataclass
class Watched:
    """A running `flamefleet up` and the witness of its batches."""

    up: Any
    folder: DataFolder
    witness: Any

    def batches(self) -> int:
        """Batches taken so far."""
        return len(self.witness.seen)


@pytest.fixture
def watched(
    start_up: Callable[..., Any], tmp_path: Path, witness_of: Callable[[Path, Path], Any]
) -> Watched:
    folder = DataFolder(tmp_path / "data")
    folder.create()
    folder.lock.touch(mode=0o600)
    Spool(folder.spool).create()
    witness = witness_of(folder.spool / "batches", tmp_path / "kept")
    return Watched(start_up().wait_ready(), folder, witness)


def require_all_once(watched: Watched, log: Path) -> None:
    """Postgres holds each batch once, with all of its samples.

    The last ones, taken while everything stopped, may still be in the spool for the next start.
    """
    watched.witness.stop()
    assert watched.witness.error is None
    taken = {(entry.run, entry.sequence) for entry in watched.witness.seen}
    written = {(e.run, e.sequence): n for e, n in watched.witness.samples().items()}
    run, last = max(taken)
    assert sorted(taken) == [(run, sequence) for sequence in range(1, last + 1)]
    assert sum(written.values()) > 0
    with stored_in(watched.folder, log) as postgres, postgres.connect("flamefleet") as connection:
        rows = connection.execute(
            "SELECT replace(runs.run::text, '-', ''), part & 4294967295, samples"
            " FROM node_prof JOIN runs ON runs.id = part >> 32 WHERE tier_s = 10"
        ).fetchall()
        runs = connection.execute("SELECT high_water, lost_batches FROM runs").fetchall()
        minutes = connection.execute(
            "SELECT m.samples, (SELECT sum(samples) FROM node_prof t WHERE t.tier_s = 10"
            " AND date_trunc('minute', t.bucket) = m.bucket)"
            " FROM node_prof m WHERE m.tier_s = 60 AND NOT EXISTS"
            " (SELECT FROM dirty_bucket d WHERE d.tier_s = 60 AND d.bucket = m.bucket)"
        ).fetchall()
    stored = {(run, sequence): samples for run, sequence, samples in rows}
    assert len(stored) == len(rows)
    late = in_spool(watched.folder.spool)
    assert late == {(run, last - ago) for ago in range(len(late))}
    assert set(stored) | late == taken
    assert all(samples == written[row] for row, samples in stored.items())
    assert runs == [(max(sequence for _, sequence in stored), 0)]
    assert all(minute == parts for minute, parts in minutes)


def test_kills_lose_nothing_and_double_nothing(
    watched: Watched, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    # WHEN each part on the samples' way is killed, and a batch more has arrived after each
    for name in PARTS:
        batches, before = watched.batches(), watched.up.processes()
        os.kill(before[name], signal.SIGKILL)
        wait_until(lambda b=before, n=name: watched.up.processes().get(n, b[n]) != b[n])
        wait_until(lambda n=batches: watched.batches() > n)
        wait_until(lambda: not in_spool(watched.folder.spool))
        after = watched.up.processes()
        assert {n for n in before if after.get(n) != before[n]} == {name}, "only it restarted"
    assert watched.up.finish(signal.SIGTERM) == 0

    # THEN nothing is missing and nothing is there twice
    require_all_once(watched, tmp_path / "postgres.log")


def family(pid: int) -> list[int]:
    """A process and its children, the parent first."""
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_outages_of_a_minute_lose_nothing_and_double_nothing(
    watched: Watched, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    # WHEN each part hangs for a minute, which is worse than being gone: requests get no answer
    for name in PARTS:
        stopped = family(watched.up.processes()[name])
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        batches = watched.batches()
        time.sleep(60)
        assert watched.batches() >= batches + 5, "sampling goes on"
        for pid in reversed(stopped):
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: not in_spool(watched.folder.spool))
    assert watched.up.finish(signal.SIGTERM) == 0

    # THEN nothing is missing and nothing is there twice
    require_all_once(watched, tmp_path / "postgres.log")
