"""Executable mappings of processes, from /proc/PID/maps (format: man 5 proc_pid_maps).

Process ids are reused: a process is (tgid, start time), and the start time is read again after the
mappings, so that they cannot silently be another process's.
"""

import os
import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import count
from typing import NamedTuple

from node_agent.processes.errors import ProcessError, ProcessGoneError

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
MAX_MAPS_BYTES = 8 << 20  # about 100,000 lines; a process with more keeps the first ones
MAX_TEXT_BYTES = 1 << 20  # of stat, status, cgroup: a user may be in 65,536 groups
# Shared memory and JIT pages that have an inode but no file that anybody could symbolize.
_NO_FILE = (b"/memfd:", b"/dev/", b"/SYSV", b"/anon_hugepage")
_EXECUTABLE = re.compile(
    rb"^([0-9a-f]{1,16})-([0-9a-f]{1,16}) ..x. "
    rb"(([0-9a-f]{1,16}) ([0-9a-f]{1,8}):([0-9a-f]{1,8}) (\d{1,20}) *(.*))$",
    re.M,
)

_ANY = re.compile(
    rb"^([0-9a-f]{1,16})-([0-9a-f]{1,16}) \S+ [0-9a-f]{1,16} "
    rb"([0-9a-f]{1,8}):([0-9a-f]{1,8}) (\d{1,20})",
    re.M,
)


# Every process has the same files mapped: what says which is held once, not once a process. By the
# text in a maps file: offset, device, inode and path of the mapping.
_MAX_FILES = 2_048
_File = tuple[int, int, int, int, bytes]  # offset, major, minor, inode, path
_files: dict[bytes, _File] = {}
_numbers = count(1)


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
    """The executable mappings of one process at one time, sorted by address.

    Held in 24 bytes each: thousands of processes with dozens of mappings are remembered. `number`
    is one that no other has had.
    """

    __slots__ = ("_ends", "_files", "_starts", "number")

    def __init__(self, entries: Iterable[tuple[int, int, _File]]) -> None:
        """`entries`: start, end and file of each."""
        found = tuple(entries)
        self._starts = array("Q", (start for start, _, _ in found))
        self._ends = array("Q", (end for _, end, _ in found))
        self._files = tuple(file for _, _, file in found)
        self.number = next(_numbers)

    @classmethod
    def of(cls, entries: Iterable[Mapping]) -> "Mappings":
        """Those of `entries`."""
        return cls((entry.start, entry.end, entry[2:]) for entry in entries)

    @property
    def entries(self) -> tuple[Mapping, ...]:
        """All of them, made anew for each call."""
        return tuple(self._entry(index) for index in range(len(self)))

    def find(self, address: int) -> Mapping | None:
        """The mapping that holds `address`."""
        index = bisect_right(self._starts, address) - 1
        if index < 0 or address >= self._ends[index]:
            return None
        return self._entry(index)

    def is_same(self, other: "Mappings") -> bool:
        """Whether both have the same entries."""
        return (self._starts, self._ends, self._files) == (
            other._starts,
            other._ends,
            other._files,
        )

    def __len__(self) -> int:
        return len(self._starts)

    def _entry(self, index: int) -> Mapping:
        return Mapping(self._starts[index], self._ends[index], *self._files[index])


def parse_maps(text: bytes) -> Mappings:
    """The executable entries of the text of a maps file."""
    return Mappings(_parse(text))


def _parse(text: bytes) -> Iterator[tuple[int, int, _File]]:
    for match in _EXECUTABLE.finditer(text):  # one by one: a process may have 65,530
        start, end, text_of_file, *fields = match.groups()
        file = _files.get(text_of_file)
        if file is None:
            file = _remember(text_of_file, *fields)
        yield int(start, 16), int(end, 16), file


def _remember(
    text: bytes, offset: bytes, major: bytes, minor: bytes, inode: bytes, path: bytes
) -> _File:
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
        stat = read_process_file(tgid, "stat")
    except OSError as error:
        raise ProcessGoneError(f"process {tgid} has ended: {error.strerror}") from error
    try:
        # The name (field 2) may hold spaces and brackets; it ends at the last bracket.
        return int(stat[stat.rindex(b")") + 2 :].split(None, 20)[19])
    except (ValueError, IndexError) as error:
        raise ProcessGoneError(f"process {tgid} tells nothing of itself") from error


def read_process_file(tgid: int, name: str) -> bytes:
    """The text that the kernel has of a process in /proc/PID/`name`, its first MAX_TEXT_BYTES.
    Raises OSError."""
    descriptor = os.open(f"/proc/{tgid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _read_all(descriptor, MAX_TEXT_BYTES)
    finally:
        os.close(descriptor)


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
        text = _read_all(descriptor, MAX_MAPS_BYTES)
    except OSError as error:  # ESRCH: ended between open and read
        raise ProcessGoneError(f"process {tgid} has ended: {error.strerror}") from error
    finally:
        os.close(descriptor)
    check_start(tgid, start_ns)
    return parse_maps(text)


def read_maps(tgid: int) -> bytes:
    """The text of a process's maps file, its first MAX_MAPS_BYTES. Raises OSError."""
    descriptor = os.open(f"/proc/{tgid}/maps", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _read_all(descriptor, MAX_MAPS_BYTES)
    finally:
        os.close(descriptor)


def file_bytes_at(tgid: int, address: int, mapping: Mapping) -> int:
    """How many bytes from `address` on the process has mapped, with whatever rights, from the file
    of `mapping`; 0 where something else is there or nobody can tell."""
    try:
        text = read_maps(tgid)
    except OSError:
        return 0
    for match in _ANY.finditer(text):
        start, end, major, minor, inode = match.groups()
        if int(start, 16) <= address < int(end, 16):
            file = int(major, 16), int(minor, 16), int(inode)
            same = file == (mapping.major, mapping.minor, mapping.inode)
            return int(end, 16) - address if same else 0
    return 0


def _read_all(descriptor: int, most_bytes: int) -> bytes:
    chunks = []
    total = 0
    while total < most_bytes:
        # The kernel fills at most a page or so a read; the end is an empty answer.
        chunk = os.read(descriptor, min(most_bytes - total, 1 << 16))
        if not chunk:
            break
        chunks.append(chunk)
        total += len(chunk)
    return b"".join(chunks)
