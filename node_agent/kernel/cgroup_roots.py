"""Where cgroup paths begin: the hierarchies that systemd keeps its units in."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from node_agent.kernel.mounts import Mount, read_mounts

_INITIAL_ROOT_ID = 1  # of every hierarchy, outside of cgroup namespaces


class CgroupRoots(NamedTuple):
    """Ids of the topmost cgroups that the agent sees: in its own cgroup namespace these are not
    the kernel's."""

    v2_id: int
    v1_id: int  # of the v1 hierarchy called systemd
    v1_hierarchy: int  # its number, 0 where there is none


def read_cgroup_roots() -> CgroupRoots:
    """The roots of this host; where a hierarchy is not mounted, the kernel's own."""
    mounts = read_mounts()
    hierarchy = parse_systemd_hierarchy(
        Path("/proc/self/cgroup").read_bytes().decode(errors="replace")
    )
    return CgroupRoots(
        _root_id(mount for mount in mounts if mount.kind == "cgroup2"),
        _root_id(m for m in mounts if m.kind == "cgroup" and "name=systemd" in m.options),
        hierarchy,
    )


def parse_systemd_hierarchy(text: str) -> int:
    """The number of the v1 hierarchy `name=systemd` in the text of /proc/PID/cgroup, or 0."""
    for line in text.split("\n"):
        number, _, rest = line.partition(":")
        if rest.startswith("name=systemd:") and number.isdigit():
            return int(number)
    return 0


def _root_id(mounts: Iterable[Mount]) -> int:
    for mount in mounts:
        try:
            return Path(mount.point).stat().st_ino
        except OSError:
            continue
    return _INITIAL_ROOT_ID
