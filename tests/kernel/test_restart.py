"""No gap over a restart: a stand-in for systemd keeps the descriptors, and plays the next start."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from node_agent.collectors.cpu import CpuCollector
from node_agent.collectors.inherited import shape
from node_agent.collectors.running import CORE_MAPS, MAPS
from node_agent.kernel.descriptor_store import DescriptorStore
from node_agent.kernel.maps import PerCpuCounters
from node_agent.kernel.structs import COUNTER_NAMES
from node_agent.spool import Spool
from wire.codec import decode
from wire.schema import Batch

RATE_HZ = 199
KEPT = len(MAPS + CORE_MAPS) + 1  # and the program; besides, an event for each CPU
# Puts the descriptors where systemd would, then is the sampler, under the same process id.
RUN = """
import fcntl, os, sys
from pathlib import Path
root, rate, max_samples, names = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[5::2]
moved = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 500) for fd in sys.argv[4::2]]
for place, fd in enumerate(moved, 3):
    os.dup2(fd, place)
    os.close(fd)
if moved:
    os.environ["LISTEN_PID"], os.environ["LISTEN_FDS"] = str(os.getpid()), str(len(moved))
    os.environ["LISTEN_FDNAMES"] = ":".join(names)
from node_agent.config import load_config
from node_agent.sampler import run_sampler
given = {"name": "web-1", "preset": "debug", "rate_hz": rate, "interval_s": 1.0}
given |= {"max_samples": max_samples}
given |= {"budget_percent": 100.0, "budget_user_percent": 100.0}  # or the rate would change
code = run_sampler(load_config(None, {}, {**given, "spool_dir": Path(root)}))
assert not [name for name in os.environ if name.startswith("LISTEN_")]
sys.exit(code)
"""


class Manager:
    """What systemd does with NOTIFY_SOCKET and FileDescriptorStoreMax=."""

    def __init__(self, folder: Path, wait_until: Callable[..., Any]) -> None:
        self._wait_until = wait_until
        self.root = folder / "spool"
        self.spool = Spool(self.root)
        self.spool.create()
        self.store: dict[str, int] = {}
        self.refused: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        self.environ = {"NOTIFY_SOCKET": str(folder / "notify")}
        self._running: list[subprocess.Popen[str]] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            data, fds, _, _ = socket.recv_fds(self._socket, 4096, 4)
            if data == b"END":
                return
            state = dict(line.split("=", 1) for line in data.decode().splitlines())
            name = state.get("FDNAME", "")
            if "FDSTORE" in state:
                if len(fds) != 1 or name in self.store or state.get("FDPOLL") != "0":
                    self.refused.append(data.decode())
                self.store[name] = fds[0]
            if "FDSTOREREMOVE" in state:
                os.close(self.store.pop(name))

    def start(self, rate_hz: int = RATE_HZ, max_samples: int = 100_000) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(self.root), str(rate_hz), str(max_samples)]
            + [word for name, fd in self.store.items() for word in (str(fd), name)],
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=tuple(self.store.values()),
            env={**os.environ, **self.environ},
        )
        self._running.append(process)
        return process

    def release(self) -> None:
        """What follows a stop."""
        while self.store:
            os.close(self.store.popitem()[1])

    def batches(self, run: bytes | None = None) -> list[Batch]:
        paths = sorted((self.root / "batches").glob("*.batch"), key=lambda p: p.stat().st_mtime_ns)
        found = [decode(path.read_bytes(), Batch) for path in paths]
        return [batch for batch in found if run is None or batch.run == run]

    def status(self) -> dict[str, Any]:
        return self.spool.read_status("sampler") or {}

    def next_run(self, before: bytes) -> list[Batch]:
        """The batches of the run after `before`, once its status tells of an interval."""
        batches: list[Batch] = self._wait_until(
            lambda: (
                self.status().get("run") != before.hex()
                and self.status().get("interval")
                and [batch for batch in self.batches() if batch.run != before]
            ),
            "a batch of the next run",
        )
        return batches

    def end(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.kill()
            process.communicate()
        self.release()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"END", self._socket.getsockname())
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path, wait_until: Callable[..., Any]) -> Iterator[Manager]:
    manager = Manager(tmp_path, wait_until)
    yield manager
    manager.end()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def samples_of(batch: Batch, executable: str) -> int:
    counts, rows = memoryview(batch.counts).cast("I"), memoryview(batch.series_index).cast("I")
    return sum(
        count
        for count, row in zip(counts, rows, strict=True)
        if batch.series[row].labels["executable"] == executable
    )


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_samples_of_the_absence_are_counted(
    manager: Manager,
    busy: tuple[subprocess.Popen[str], list[int]],
    how: signal.Signals,
    wait_until: Callable[..., Any],
) -> None:
    load, _ = busy
    first = manager.start()
    run = wait_until(
        lambda: len(manager.batches()) >= 2 and manager.batches()[0].run, "two batches"
    )
    first.send_signal(how)
    first.communicate(timeout=600)
    ended_ns, used_s = time.time_ns(), cpu_seconds(load.pid)
    stored = dict(manager.store)
    wait_until(lambda: cpu_seconds(load.pid) - used_s >= 1.0, "a second of CPU")

    second = manager.start()
    absence_s = cpu_seconds(load.pid) - used_s
    gap = manager.next_run(run)[0]
    status = manager.status()
    second.terminate()
    said = second.communicate(timeout=600)[1]

    assert "went on with the last run's programs" in said
    assert len([name for name in stored if ".cpu" in name]) == os.cpu_count()
    assert manager.store == stored  # the same are kept for the time after
    assert manager.refused == []
    # its interval began before the first process was gone, and counts what ran since then
    assert gap.start_ns <= ended_ns
    assert gap.start_ns + gap.duration_ns > ended_ns + absence_s * 0.9e9
    assert samples_of(gap, "busy") >= 0.8 * absence_s * RATE_HZ
    # no overlap: samples are of one batch only
    before = manager.batches(run)[-1]
    assert before.start_ns + before.duration_ns <= gap.start_ns + 1_000_000
    if how is signal.SIGTERM:  # what a killed process had read went with it
        assert status["unplaced"].get("stack_lost", 0) == 0
    assert status["overhead"]["kernel_cpu_ns"] > 0


def test_an_upgrade_counts_what_the_old_programs_sampled(
    manager: Manager, busy: tuple[subprocess.Popen[str], list[int]], wait_until: Callable[..., Any]
) -> None:
    load, _ = busy
    first = manager.start()
    run = wait_until(lambda: manager.batches() and manager.batches()[0].run, "a batch")
    first.terminate()
    first.communicate(timeout=600)
    ended_ns, used_s = time.time_ns(), cpu_seconds(load.pid)
    old = set(manager.store)
    wait_until(lambda: cpu_seconds(load.pid) - used_s >= 1.0, "a second of CPU")

    second = manager.start(max_samples=1000)  # smaller maps: another layout, as of another version
    absence_s = cpu_seconds(load.pid) - used_s
    gap = manager.next_run(run)[0]
    second.terminate()
    said = second.communicate(timeout=600)[1]

    assert "went on" not in said
    assert "counts what other programs sampled in" in said
    assert not old & manager.store.keys()
    assert gap.start_ns <= ended_ns
    assert samples_of(gap, "busy") >= 0.8 * absence_s * RATE_HZ
    before = manager.batches(run)[-1]
    assert before.start_ns + before.duration_ns <= gap.start_ns + 1_000_000


def test_what_another_versions_programs_sampled_is_said_to_be_lost(
    manager: Manager, wait_until: Callable[..., Any]
) -> None:
    first = manager.start()
    run = wait_until(lambda: manager.batches() and manager.batches()[0].run, "a batch")
    first.terminate()
    first.communicate(timeout=600)
    # the last part of a layout tells the structs of the maps
    old = {name.replace(f"-{shape()}.", "-0123abcd."): fd for name, fd in manager.store.items()}
    manager.store = dict(old)

    second = manager.start()
    manager.next_run(run)
    second.terminate()
    said = second.communicate(timeout=600)[1]

    assert "lost: what programs of another version sampled" in said
    assert not old.keys() & manager.store.keys()


def test_other_settings_start_anew_and_leave_nothing_of_the_old(
    manager: Manager, wait_until: Callable[..., Any]
) -> None:
    first = manager.start()
    run = wait_until(lambda: manager.batches() and manager.batches()[0].run, "a batch")
    first.terminate()
    first.communicate(timeout=600)
    old = set(manager.store)
    started_ns = time.time_ns()

    second = manager.start(rate_hz=97)
    batch = manager.next_run(run)[0]
    second.terminate()
    said = second.communicate(timeout=600)[1]

    assert "went on" not in said
    assert old
    assert len(manager.store) == len(old)
    assert not old & manager.store.keys()
    assert batch.start_ns > started_ns
    assert batch.rate_millihertz == 97_000


def test_a_store_that_lacks_a_map_is_not_gone_on_with(
    manager: Manager, wait_until: Callable[..., Any]
) -> None:
    first = manager.start()
    run = wait_until(lambda: manager.batches() and manager.batches()[0].run, "a batch")
    first.terminate()
    first.communicate(timeout=600)
    lacking = next(name for name in manager.store if name.endswith("ff_counts_odd"))
    os.close(manager.store.pop(lacking))
    old = dict(manager.store)

    second = manager.start()
    manager.next_run(run)
    second.terminate()
    said = second.communicate(timeout=600)[1]

    assert "went on" not in said
    assert manager.store.keys() == old.keys() | {lacking}


def test_a_changed_rate_leaves_no_event_of_the_old_one(
    manager: Manager, wait_until: Callable[..., Any]
) -> None:
    cpus = os.cpu_count() or 1
    collector = CpuCollector(RATE_HZ, 1000, 10, store=DescriptorStore(manager.environ))
    collector.start()
    try:
        wait_until(lambda: len(manager.store) == KEPT + cpus, "storing them all")
        old = {name for name in manager.store if ".cpu" in name}
        collector.set_rate(19)
        wait_until(
            lambda: len(manager.store) == KEPT + cpus and not old & manager.store.keys(), "both"
        )
        collector.take_interval()
        time.sleep(2)
        interval = collector.take_interval()
    finally:
        collector.stop()
        manager.release()

    # with the events of the old rate it would be 218 a second and CPU
    assert interval.interrupts / interval.duration_ns * 1e9 / cpus < 60


def test_programs_that_nobody_comes_back_to_fall_silent(
    manager: Manager, busy: tuple[subprocess.Popen[str], list[int]], wait_until: Callable[..., Any]
) -> None:
    store = DescriptorStore(manager.environ)
    collector = CpuCollector(RATE_HZ, 1000, 10, heartbeat_limit_s=0.5, store=store)
    collector.start()
    wait_until(lambda: len(manager.store) == KEPT + (os.cpu_count() or 1), "storing them all")
    collector.stop()
    counters = next(fd for name, fd in manager.store.items() if name.endswith("ff_counters"))
    kept = PerCpuCounters(counters, COUNTER_NAMES)

    before = wait_until(lambda: (now := kept.read())["silent"] and now, "silence")
    wait_until(lambda: kept.read()["silent"] > before["silent"] + 50, "more silence")

    assert kept.read()["samples"] == before["samples"] > 0


@pytest.mark.long
def test_a_stuck_agents_program_falls_silent_after_a_minute(
    busy: tuple[subprocess.Popen[str], list[int]],
) -> None:
    collector = CpuCollector(19, 100_000, 10)
    collector.start()
    try:
        time.sleep(75)  # no beat
        interval = collector.take_interval()
    finally:
        collector.stop()

    cpus = os.cpu_count() or 1
    assert 0 < interval.skipped["silent"] < 20 * 19 * cpus
    assert interval.interrupts - interval.skipped["silent"] > 50 * 19 * cpus
