"""What the agent has in the kernel at this moment, whoever holds it: the proof after a stop.

Names of our programs and maps begin with ff_ (bpf/cpu.bpf.c). Nothing of ours is ever pinned, so
an object lives for as long as a process holds its descriptor, or an event that it is attached to.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from node_agent.kernel.libbpf import library

PREFIX = b"ff_"
_INFO_BYTES = 512  # more than any kernel's struct bpf_prog_info or bpf_map_info
_NAME = struct.Struct("16s")
_NAME_OFFSETS = {"program": 64, "map": 24}  # include/uapi/linux/bpf.h
_EVENT = "anon_inode:[perf_event]"
_PROC = Path("/proc")


class Remnant(NamedTuple):
    """A program or map of ours, or the sampling events of a process that holds one."""

    kind: str  # program, map or events
    name: str
    id: int  # the kernel's; of events: how many
    holders: tuple[int, ...]  # process ids; none where only an event or the kernel holds it


class Survey(NamedTuple):
    """What was found, and in words what could not be looked at: then nothing is proved."""

    found: list[Remnant]
    unseen: list[str]

    @property
    def holders(self) -> set[int]:
        return {pid for remnant in self.found for pid in remnant.holders}

    @property
    def is_clean(self) -> bool:
        return not self.found and not self.unseen


def survey() -> Survey:
    """Look through the kernel's lists and every process. Raises LibbpfError."""
    lib = library()
    found: list[Remnant] = []
    unseen: list[str] = []
    holders, events, hidden = _descriptors()
    for kind, next_id, open_id in (
        ("program", lib.bpf_prog_get_next_id, lib.bpf_prog_get_fd_by_id),
        ("map", lib.bpf_map_get_next_id, lib.bpf_map_get_fd_by_id),
    ):
        try:
            for number, name in _objects(kind, next_id, open_id):
                pids = tuple(sorted(holders.get((kind, number), ())))
                found.append(Remnant(kind, name, number, pids))
        except OSError as error:
            unseen.append(f"the kernel's {kind}s: {error.strerror} (that needs CAP_SYS_ADMIN)")
    for pid in sorted({pid for remnant in found for pid in remnant.holders}):
        if events.get(pid):
            found.append(Remnant("events", "cpu-clock", events[pid], (pid,)))
    if hidden and found:
        unseen.append(f"the descriptors of {hidden} processes (that needs CAP_SYS_PTRACE)")
    return Survey(found, unseen)


def _objects(
    kind: str, next_id: Callable[..., int], open_id: Callable[[int], int]
) -> Iterator[tuple[int, str]]:
    """Ids and names of ours. Raises OSError where the kernel does not tell."""
    number = ctypes.c_uint32(0)
    while True:
        code = -next_id(number.value, ctypes.byref(number))
        if code == errno.ENOENT:  # that was the last one
            return
        if code:
            raise OSError(code, os.strerror(code))
        fd = open_id(number.value)
        if fd == -errno.ENOENT:  # gone meanwhile
            continue
        if fd < 0:
            raise OSError(-fd, os.strerror(-fd))
        try:
            info = ctypes.create_string_buffer(_INFO_BYTES)  # zeros ask for no lists
            size = ctypes.c_uint32(_INFO_BYTES)
            code = -library().bpf_obj_get_info_by_fd(fd, info, ctypes.byref(size))
        finally:
            os.close(fd)
        if code:
            raise OSError(code, os.strerror(code))
        name = _NAME.unpack_from(info, _NAME_OFFSETS[kind])[0].partition(b"\0")[0]
        if name.startswith(PREFIX):
            yield number.value, name.decode("ascii", "replace")


def _descriptors() -> tuple[dict[tuple[str, int], set[int]], dict[int, int], int]:
    """Who holds which program or map, how many events each process holds, and how many processes
    could not be looked at."""
    holders: dict[tuple[str, int], set[int]] = {}
    events: dict[int, int] = {}
    hidden = 0
    for process in _PROC.iterdir():
        if not process.name.isdecimal():
            continue
        pid = int(process.name)
        try:
            for fd in (process / "fd").iterdir():
                with suppress(FileNotFoundError):
                    _note(pid, fd, holders, events)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        except PermissionError:
            hidden += 1
    return holders, events, hidden


def _note(
    pid: int, fd: Path, holders: dict[tuple[str, int], set[int]], events: dict[int, int]
) -> None:
    target = os.readlink(fd)  # noqa: PTH115 (a link, never followed)
    if target == _EVENT:
        events[pid] = events.get(pid, 0) + 1
    elif target in ("anon_inode:bpf-prog", "anon_inode:bpf-map"):
        for line in (fd.parents[1] / "fdinfo" / fd.name).read_text().split("\n"):
            for kind, key in (("program", "prog_id:"), ("map", "map_id:")):
                if line.startswith(key):
                    holders.setdefault((kind, int(line.split()[1])), set()).add(pid)
