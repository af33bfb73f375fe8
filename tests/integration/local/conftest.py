"""`flamefleet up` as its user runs it: another process, a data folder of its own, a free port; and
a witness of every batch.

What the sampler wrote is the truth. That nothing of it can escape, the kernel sees to: inotify
names every batch that appears, and fanotify holds the shipper's open() of a batch until the file
has been linked to another name.
"""

import ctypes
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from node_agent.spool import BatchEntry
from node_agent.spool.entries import parse_batch_name
from wire.codec import decode
from wire.schema import Batch

# <sys/inotify.h> and <sys/fanotify.h>
IN_MOVED_TO, IN_EVENT = 0x80, struct.Struct("iIII")
FAN_CLOEXEC, FAN_CLASS_CONTENT, FAN_MARK_ADD, FAN_ALLOW = 1, 4, 1, 1
FAN_OPEN_PERM, FAN_EVENT_ON_CHILD = 0x10000, 0x08000000
FAN_EVENT, FAN_RESPONSE = struct.Struct("IBBHQii"), struct.Struct("iI")
AT_FDCWD = -100
libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="session")
def is_alive() -> Callable[[int], bool]:
    """is_alive(pid): whether a process exists and is no zombie."""

    def alive(pid: int) -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        return state not in ("Z", "X")

    return alive


@dataclass
class Up:
    """A running `flamefleet up --json`; its progress goes to the file `said`."""

    data_dir: Path
    port: int
    process: subprocess.Popen[str]
    said: Path
    ready: dict[str, Any] = field(default_factory=dict)

    def wait_ready(self) -> "Up":
        """Read the line of --json, or fail with what was said."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"no ready line:\n{self.said.read_text()}"
        self.ready = json.loads(line)
        return self

    def get(self, path: str, **query: str | int) -> Any:
        """The JSON answer to a GET."""
        with urlopen(f"{self.ready['url'].rstrip('/')}{path}?{urlencode(query)}") as answer:
            return json.load(answer)

    def processes(self) -> dict[str, int]:
        """Process ids of all parts that run now, as `up` itself records them."""
        record = json.loads((self.data_dir / "processes.json").read_text())
        return {name: part["pid"] for name, part in record.items()}

    def finish(self, number: signal.Signals | None = None, timeout_s: float = 300.0) -> int:
        """Send a signal, if one is given, and wait for the exit status."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(timeout_s)


Start = Callable[..., Up]


@pytest.fixture
def free_port(find_port: Callable[[], int]) -> int:
    return find_port()


@pytest.fixture
def up_command() -> list[str]:
    """The command under test."""
    return [str(Path(sys.executable).with_name("flamefleet")), "up"]


@pytest.fixture
def start_up(tmp_path: Path, up_command: list[str], free_port: int) -> Iterator[Start]:
    """Start `flamefleet up` with more flags; what still runs at the end is stopped."""
    started: list[Up] = []

    def start(
        *flags: str, data_dir: Path = tmp_path / "data", port: int = free_port, **environment: str
    ) -> Up:
        said = tmp_path / f"said-{len(started)}.txt"
        arguments = ["--json", "--data-dir", str(data_dir), "--port", str(port), *flags]
        with said.open("w") as stream:
            process = subprocess.Popen(
                [*up_command, *arguments],
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                cwd="/",
                env={k: v for k, v in os.environ.items() if "FLAMEFLEET" not in k} | environment,
            )
        started.append(Up(data_dir, port, process, said))
        return started[-1]

    yield start
    for up in started:
        if up.process.poll() is None:
            up.process.terminate()
            try:
                up.process.wait(300)
            except subprocess.TimeoutExpired:
                up.process.kill()
                up.process.wait()
        assert up.process.stdout is not None
        up.process.stdout.close()


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
            except Exception as error:  # in a thread: the test raises it
                self.error = error
            finally:
                if fd >= 0:
                    os.write(self._opens, FAN_RESPONSE.pack(fd, FAN_ALLOW))
                    os.close(fd)


@pytest.fixture
def witness_of() -> Iterator[Callable[[Path, Path], Witness]]:
    """witness_of(folder, kept): a witness of the batches in `folder`, which keeps them in the new
    folder `kept`, on the same file system."""
    made: list[Witness] = []

    def watch(folder: Path, kept: Path) -> Witness:
        made.append(Witness(folder, kept))
        return made[-1]

    yield watch
    for witness in made:
        witness.stop()
