"""Killing the shipper, the aggregator and Postgres loses no sample and counts none twice.

The truth is what the sampler wrote: every batch file is linked to another name as soon as it is in
the spool, and its counts are compared with the rows that Postgres holds in the end.
"""

import os
import signal
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from aggregator.local.account import server_account
from aggregator.local.data_folder import DataFolder
from aggregator.local.postgres import Postgres, create_postgres
from aggregator.local.process import Process
from wire.codec import decode
from wire.schema import Batch

pytestmark = pytest.mark.timeout(240)
Row = tuple[str, int]  # run, sequence
PARTS = ("shipper", "aggregator", "postgres")  # on the samples' way, in its order


@contextmanager
def keeping_batches(spool: Path, kept: Path) -> Iterator[None]:
    """Link every batch file of `spool` into `kept` before it is delivered and removed."""
    over = threading.Event()

    def link() -> None:
        for file in (spool / "batches").glob("*.batch"):
            with suppress(FileNotFoundError, FileExistsError):
                (kept / file.name).hardlink_to(file)

    def watch() -> None:
        while not over.wait(0.01):
            link()

    kept.mkdir()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def in_spool(spool: Path) -> set[Row]:
    """Batches that wait to be delivered."""
    names = [file.stem.split("-") for file in (spool / "batches").glob("*.batch")]
    return {(run, int(sequence)) for run, sequence in names}


def samples_written(kept: Path) -> dict[Row, int]:
    """Samples by batch, from the sampler's own files."""
    written = {}
    for file in kept.glob("*.batch"):
        batch = decode(file.read_bytes(), Batch)
        written[batch.run.hex(), batch.sequence] = sum(array("I", batch.counts))
    return written


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
    """A running `flamefleet up` whose batches are kept."""

    up: Any
    folder: DataFolder
    kept: Path

    def batches(self) -> int:
        """Batches taken so far."""
        return len(list(self.kept.iterdir()))


@pytest.fixture
def watched(start_up: Callable[..., Any], tmp_path: Path) -> Iterator[Watched]:
    folder = DataFolder(tmp_path / "data")
    kept = tmp_path / "kept"
    with keeping_batches(folder.spool, kept):
        yield Watched(start_up().wait_ready(), folder, kept)


def require_all_once(watched: Watched, log: Path) -> None:
    """Postgres holds each batch once, with all of its samples.

    The last one, taken while everything stopped, may still be in the spool for the next start.
    """
    written = samples_written(watched.kept)
    ((run, last),) = [max(written)]
    assert sorted(written) == [(run, sequence) for sequence in range(1, last + 1)]
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
    assert late <= {(run, last)}
    assert stored | {row: written[row] for row in late} == written
    assert runs in ([(last, 0)], [(last - len(late), 0)])
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
        wait_until(lambda: not in_spool(watched.folder.spool), timeout_s=90)
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
        wait_until(lambda: not in_spool(watched.folder.spool), timeout_s=180)
    assert watched.up.finish(signal.SIGTERM) == 0

    # THEN nothing is missing and nothing is there twice
    require_all_once(watched, tmp_path / "postgres.log")
