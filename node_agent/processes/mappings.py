"""Executable mappings of processes, from /proc/PID/maps (format: man 5 proc_pid_maps).

Process ids are reused: a process is (tgid, start time), and the start time is read again after the
mappings, so that they cannot silently be another process's.
"""

import os
import re
from bisect import bisect_right
from pathlib import Path
from typing import NamedTuple

from node_agent.processes.errors import ProcessError, ProcessGoneError

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
MAX_MAPS_BYTES = 8 << 20  # about 100,000 lines; a process with more keeps the first ones
# Shared memory and JIT pages that have an inode but no file that anybody could symbolize.
_NO_FILE = (b"/memfd:", b"/dev/", b"/SYSV", b"/anon_hugepage")
_EXECUTABLE = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) ..x. (([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+) *(.*))$", re.M
)

_ANY = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) \S+ [0-9a-f]+ ([0-9a-f]+):([0-9a-f]+) (\d+)", re.M)


# Every process has the same files mapped: what says which is held once, not once a process. By the
# text in a maps file: offset, device, inode and path of the mapping.
_MAX_FILES = 2_048
_files: dict[bytes, tuple[int, int, int, int, bytes]] = {}


class Mapping(NamedTuple):
    """One executable mapping; `offset` is the file offset of `start`. `path` is empty for
    anonymous memory, `[vdso]` and the like for the kernel's own."""

    start: int
    end: int
    offset: int
    major: int
    minor: int
    inode: int
    path: bytes

    @property
    def deleted(self) -> bool:
        """Whether the file's name is gone (its content is still mapped)."""
        return self.path.endswith(b" (deleted)")

    @property
    def has_file(self) -> bool:
        """Whether a file is behind it that could tell anything of its code."""
        return self.path.startswith(b"/") and not self.path.startswith(_NO_FILE)


class Mappings:
    """The executable mappings of one process at one time, sorted by address."""

    __slots__ = ("_starts", "entries")

    def __init__(self, entries: tuple[Mapping, ...]) -> None:
        self.entries = entries
        self._starts = [entry.start for entry in entries]

    def find(self, address: int) -> Mapping | None:
        """The mapping that holds `address`."""
        index = bisect_right(self._starts, address) - 1
        if index < 0 or address >= self.entries[index].end:
            return None
        return self.entries[index]


def parse_maps(text: bytes) -> tuple[Mapping, ...]:
    """The executable entries of the text of a maps file."""
    entries = []
    for start, end, text_of_file, *fields in _EXECUTABLE.findall(text):
        file = _files.get(text_of_file)
        if file is None:
            file = _remember(text_of_file, *fields)
        entries.append(Mapping(int(start, 16), int(end, 16), *file))
    return tuple(entries)


def _remember(
    text: bytes, offset: bytes, major: bytes, minor: bytes, inode: bytes, path: bytes
) -> tuple[int, int, int, int, bytes]:
    if len(_files) >= _MAX_FILES:
        _files.clear()
    file = (
        int(offset, 16),
        int(major, 16),
        int(minor, 16),
        int(inode),
        path.replace(b"\\012", b"\n"),
    )
    _files[text] = file
    return file


def read_start_ticks(tgid: int) -> int:
    """Start time of a process in clock ticks since boot (field 22 of /proc/PID/stat).

    Raises ProcessGoneError.
    """
    try:
        stat = Path(f"/proc/{tgid}/stat").read_bytes()
    except OSError as error:
        raise ProcessGoneError(f"process {tgid} has ended: {error.strerror}") from error
    # The name (field 2) may hold spaces and brackets; it ends at the last bracket.
    return int(stat[stat.rindex(b")") + 2 :].split(None, 20)[19])


def check_start(tgid: int, start_ns: int) -> None:
    """Raise ProcessGoneError unless process `tgid` started at `start_ns` (boot time).

    /proc has ticks of 10 ms where the kernel side has nanoseconds. One tick of tolerance: the
    kernel rounds both down, but a time namespace may shift /proc by a part of a tick.
    """
    ticks = read_start_ticks(tgid)
    if abs(ticks - start_ns // _TICK_NS) > 1:
        raise ProcessGoneError(f"process id {tgid} belongs to another process by now")


def read_mappings(tgid: int, start_ns: int) -> Mappings:
    """The executable mappings of process (tgid, start_ns).

    Raises ProcessGoneError (also when the id was reused), or ProcessError when reading is denied.
    """
    try:
        descriptor = os.open(f"/proc/{tgid}/maps", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise ProcessGoneError(f"process {tgid} has ended") from error
    except OSError as error:
        raise ProcessError(
            f"the mappings of process {tgid} cannot be read: {error.strerror}",
            "the sampler needs CAP_SYS_PTRACE",
        ) from error
    try:
        text = _read_all(descriptor)
    except OSError as error:  # ESRCH: ended between open and read
        raise ProcessGoneError(f"process {tgid} has ended: {error.strerror}") from error
    finally:
        os.close(descriptor)
    check_start(tgid, start_ns)
    return Mappings(parse_maps(text))


def read_maps(tgid: int) -> bytes:
    """The text of a process's maps file, its first MAX_MAPS_BYTES. Raises OSError."""
    descriptor = os.open(f"/proc/{tgid}/maps", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _read_all(descriptor)
    finally:
        os.close(descriptor)


def file_bytes_at(tgid: int, address: int, mapping: Mapping) -> int:
    """How many bytes from `address` on the process has mapped, with whatever rights, from the file
    of `mapping`; 0 where something else is there or nobody can tell."""
    try:
        text = read_maps(tgid)
    except OSError:
        return 0
    for start, end, major, minor, inode in _ANY.findall(text):
        if int(start, 16) <= address < int(end, 16):
            file = int(major, 16), int(minor, 16), int(inode)
            same = file == (mapping.major, mapping.minor, mapping.inode)
            return int(end, 16) - address if same else 0
    return 0


def _read_all(descriptor: int) -> bytes:
    chunks = []
    total = 0
    while total < MAX_MAPS_BYTES:
        # The kernel fills at most a page or so a read; the end is an empty answer.
        chunk = os.read(descriptor, 1 << 16)
        if not chunk:
            break
        chunks.append(chunk)
        total += len(chunk)
    return b"".join(chunks)
