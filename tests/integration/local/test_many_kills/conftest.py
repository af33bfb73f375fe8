"""The parts on a sample's way as processes of their own, and a witness of every batch.

What the sampler wrote is the truth. That nothing of it can escape, the kernel sees to: inotify
names every batch that appears, and fanotify holds the shipper's open() of a batch until the file
has been linked to another name.
"""

import ctypes
import os
import select
import shutil
import signal
import struct
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from aggregator.access.service import create_token
from aggregator.db import create_sync_database, run_migrations, session_scope
from aggregator.local.account import server_account
from aggregator.local.postgres import Postgres, create_postgres
from aggregator.local.process import Command, Process
from node_agent.spool import BatchEntry, Spool
from node_agent.spool.entries import parse_batch_name
from wire.codec import decode
from wire.schema import Batch

NODE, DATABASE = "node-1", "flamefleet"
PARTS = ("sampler", "shipper", "aggregator", "postgres")
PATIENCE_S = 180.0
# <sys/inotify.h> and <sys/fanotify.h>
IN_MOVED_TO, IN_EVENT = 0x80, struct.Struct("iIII")
FAN_CLOEXEC, FAN_CLASS_CONTENT, FAN_MARK_ADD, FAN_ALLOW = 1, 4, 1, 1
FAN_OPEN_PERM, FAN_EVENT_ON_CHILD = 0x10000, 0x08000000
FAN_EVENT, FAN_RESPONSE = struct.Struct("IBBHQii"), struct.Struct("iI")
AT_FDCWD = -100
libc = ctypes.CDLL(None, use_errno=True)


def checked(value: int) -> int:
    """The answer of a C function, where negative is an error."""
    if value < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return value


class Witness:
    """Every batch that was ever in `folder`: its name in `seen`, its file in `kept`."""

    def __init__(self, folder: Path, kept: Path) -> None:
        self.seen: set[BatchEntry] = set()
        self.opened = threading.Event()  # by the shipper: a delivery begins
        self.error: Exception | None = None
        self._kept = kept
        kept.mkdir()
        path = os.fsencode(folder)
        self._names = checked(libc.inotify_init1(os.O_CLOEXEC))
        checked(libc.inotify_add_watch(self._names, path, IN_MOVED_TO))
        flags = FAN_CLOEXEC | FAN_CLASS_CONTENT
        self._opens = checked(libc.fanotify_init(flags, os.O_RDONLY | os.O_CLOEXEC))
        mask = ctypes.c_uint64(FAN_OPEN_PERM | FAN_EVENT_ON_CHILD)
        checked(libc.fanotify_mark(self._opens, FAN_MARK_ADD, mask, AT_FDCWD, path))
        self._end_read, self._end_write = os.pipe()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> None:
        """All that happened before is taken in. May be called again."""
        if not self._thread.is_alive():
            return
        os.write(self._end_write, b"!")
        self._thread.join()
        for end in (self._opens, self._names, self._end_read, self._end_write):
            os.close(end)

    def samples(self) -> dict[BatchEntry, int]:
        """Samples of every batch whose file was kept."""
        samples = {}
        for file in self._kept.iterdir():
            batch = decode(file.read_bytes(), Batch)
            samples[BatchEntry(batch.run.hex(), batch.sequence)] = sum(array("I", batch.counts))
        return samples

    def _watch(self) -> None:
        ready: list[int] = []
        while self._end_read not in ready or len(ready) > 1:
            ready, _, _ = select.select([self._names, self._opens, self._end_read], [], [])
            if self._names in ready:
                self._take_names(os.read(self._names, 1 << 16))
            if self._opens in ready:
                self._take_opens(os.read(self._opens, 1 << 16))

    def _take_names(self, events: bytes) -> None:
        at = 0
        while at < len(events):
            _, mask, _, length = IN_EVENT.unpack_from(events, at)
            at += IN_EVENT.size + length
            if not mask & IN_MOVED_TO:  # the queue ran over: names are missing
                self.error = RuntimeError(f"inotify event {mask:#x}")
            name = os.fsdecode(events[at - length : at].rstrip(b"\0"))
            entry = parse_batch_name(name) if name.endswith(".batch") else None
            if entry is not None:
                self.seen.add(entry)

    def _take_opens(self, events: bytes) -> None:
        for *_, mask, fd, _ in FAN_EVENT.iter_unpack(events):
            try:
                if fd < 0:
                    raise RuntimeError(f"fanotify event {mask:#x}")
                file = Path(f"/proc/self/fd/{fd}").readlink()
                if file.suffix == ".batch":  # the sampler opens other names
                    with suppress(FileExistsError):
                        (self._kept / file.name).hardlink_to(file)
                    self.opened.set()
            except Exception as error:
                self.error = error
            finally:
                if fd >= 0:
                    os.write(self._opens, FAN_RESPONSE.pack(fd, FAN_ALLOW))
                    os.close(fd)


@dataclass
class Pipeline:
    """The four parts on a sample's way; all are started by the test's own thread."""

    postgres: Postgres
    commands: dict[str, Command]
    spool: Spool
    witness: Witness
    logs: Path
    running: dict[str, Process] = field(default_factory=dict)
    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))

    def start(self, name: str) -> None:
        """Start a part; its output is added to its log."""
        self.running.pop(name, None)
        if name == "postgres":
            self.wait(self.postgres.may_start)  # its children end by themselves
        with (self.logs / f"{name}.log").open("ab") as log:
            self.running[name] = Process(self.commands[name], log)

    def kill(self, name: str) -> None:
        """Kill a part wherever it is, and start it again."""
        assert self.running[name].poll() is None, f"{name} ended by itself"
        os.kill(self.running[name].pid, signal.SIGKILL)
        assert self.running[name].stop()
        self.kills[name] += 1
        self.start(name)

    def wait(self, holds: Callable[[], bool]) -> None:
        """Until `holds()`; a part that ended by itself meanwhile is started again."""
        limit = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < limit, "waited in vain"
            self.tend()
            time.sleep(0.02)

    def tend(self) -> None:
        """Start what gave up because another part was away, as a service manager does."""
        for name, process in list(self.running.items()):
            if process.poll() is not None:
                self.start(name)

    def wait_delivered(self) -> None:
        """Until a batch that is not there yet has gone all the way, through all four parts."""
        known = set(self.witness.seen)
        self.wait(lambda: bool(set(self.witness.seen) - known - set(self.spool.pending())))

    def drain(self) -> None:
        """End the sampler in order and wait until nothing is left to deliver."""
        assert self.running.pop("sampler").stop(PATIENCE_S)
        self.wait(lambda: not self.spool.pending())

    def stop(self) -> None:
        """End all parts; Postgres last."""
        for name in PARTS:
            if name in self.running:
                self.running[name].stop()
        self.witness.stop()


@pytest.fixture
def pipeline(tmp_path: Path, valkey_url: str, free_port: int) -> Iterator[Pipeline]:
    folder = Path(tempfile.mkdtemp(prefix="ff-kills-"))  # short: it holds a socket
    folder.chmod(0o711)
    postgres = create_postgres(folder / "postgres", folder / "pg", server_account())
    postgres.initialise()
    spool = Spool(tmp_path / "spool", 256 << 20, 86_400.0)
    spool.create()
    token, config = tmp_path / "token", tmp_path / "agent.toml"
    config.write_text(
        f'[agent]\nname = "{NODE}"\nrate_hz = 49\ninterval_s = 0.5\nspool_dir = "{spool.root}"\n'
        f'[ship]\nurl = "http://127.0.0.1:{free_port}"\ntoken_file = "{token}"\n'
    )
    binaries = Path(sys.executable).parent
    agent = (str(binaries / "flamefleet-agent"),)
    url = postgres.url(DATABASE)
    serve = (str(binaries / "flamefleet"), "serve", "--host", "127.0.0.1", "--port", str(free_port))
    commands = {
        # Three crashes would detach it; here they are ours.
        "sampler": Command("sampler", (*agent, "run", "--config", str(config), "--reset-breaker")),
        "shipper": Command("shipper", (*agent, "ship", "--config", str(config))),
        "aggregator": Command(
            "aggregator", (*serve, "--database-url", url, "--broker-url", valkey_url)
        ),
        "postgres": postgres.command(),
    }
    witness = Witness(spool.root / "batches", tmp_path / "kept")
    pipeline = Pipeline(postgres, commands, spool, witness, tmp_path)
    try:
        pipeline.start("postgres")
        postgres.wait_ready(pipeline.running["postgres"], PATIENCE_S)
        postgres.create_database(DATABASE)
        run_migrations(url)
        engine = create_sync_database(url)
        with session_scope(engine) as session:
            token.write_text(create_token(session, NODE))
        engine.dispose()
        token.chmod(0o600)
        yield pipeline
    finally:
        pipeline.stop()
        shutil.rmtree(folder)
