"""CPU time and memory of the calling process.

Memory is `anon + kernel` of the unit's own control group. Outside a unit of its own the process
has no such account: then its private anonymous memory, without the kernel's part.
"""

import os
import resource
import time
from pathlib import Path
from typing import NamedTuple

_CGROUPS = Path("/sys/fs/cgroup")


class ShipperUsage(NamedTuple):
    """What the shipper reports of itself through the spool; totals since its start."""

    pid: int
    cpu_ns: int
    memory_bytes: int


class Memory(NamedTuple):
    total_bytes: int
    has_kernel: bool  # kernel memory is in it, that of BPF maps included


def own_cpu_ns() -> int:
    """User and system time of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time_ns() + round((children.ru_utime + children.ru_stime) * 1e9)


def own_usage(account: "MemoryAccount") -> ShipperUsage:
    """For the shipper to report; cheap enough for every few seconds (under a millisecond)."""
    return ShipperUsage(os.getpid(), own_cpu_ns(), account.read().total_bytes)


class MemoryAccount:
    """Where this process's memory is accounted; found once, since a unit keeps its group."""

    def __init__(self) -> None:
        self._group = own_unit_group(
            _CGROUPS, Path("/proc/self/cgroup").read_bytes().decode(errors="replace"), os.getpid()
        )

    @property
    def group(self) -> Path | None:
        """The control group of this process's own unit; None outside one."""
        return self._group

    def read(self) -> Memory:
        if self._group is not None:
            try:
                return parse_memory_stat((self._group / "memory.stat").read_text())
            except OSError:  # the group went away or the controller was turned off
                self._group = None
        return Memory(parse_anonymous(Path("/proc/self/smaps_rollup").read_text()), False)


def own_unit_group(cgroups: Path, membership: str, pid: int) -> Path | None:
    """The version 2 control group of a service that holds this process alone, or None.

    `membership` is the text of /proc/self/cgroup. A group with other processes in it (a login
    session, a CI runner's service) would tell their memory as ours.
    """
    for line in membership.split("\n"):
        path = line.removeprefix("0::")
        if path == line or not path.endswith(".service"):
            continue
        group = cgroups / path.lstrip("/")
        try:
            alone = (group / "cgroup.procs").read_text().split() == [str(pid)]
        except OSError:
            return None
        return group if alone and (group / "memory.stat").exists() else None
    return None


def parse_memory_stat(text: str) -> Memory:
    """`anon + kernel` of a memory.stat.

    Before 5.18 there is no `kernel` line: its parts that are shown are added up, without the
    memory of BPF maps.
    """
    fields = {
        name: int(value) for name, value in (line.split() for line in text.split("\n") if line)
    }
    anonymous = fields.get("anon", 0)
    if "kernel" in fields:
        return Memory(anonymous + fields["kernel"], True)
    parts = ("kernel_stack", "pagetables", "percpu", "slab")
    return Memory(anonymous + sum(fields.get(part, 0) for part in parts), False)


def parse_anonymous(text: str) -> int:
    """Bytes of private anonymous memory in a /proc/PID/smaps_rollup."""
    for line in text.split("\n"):
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    return 0
