"""What the text of /proc/PID/cgroup tells of a process: unit, container, container runtime. Pure.

There is no standard for the names; these are what the runtimes write, with both of their cgroup
drivers (systemd: a scope in slices; cgroupfs: plain folders). See man 7 cgroups for the format.
"""

import re
from typing import NamedTuple

SHOWN_ID = 12  # digits of a container's id, as the runtimes' own tools show it
_HEX_ID = r"[0-9a-f]{64}"
# Fargate: 32 digits of the task and a number; Cloud Foundry and others: a UUID.
_OTHER_ID = r"[0-9a-f]{32}-\d+|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_SCOPE = re.compile(rf"^([a-z-]+?)-({_HEX_ID})(?:\.scope)?$")
_BARE = re.compile(rf"^({_HEX_ID}|{_OTHER_ID})$")
# Prefixes of scopes, and folders that hold bare ids.
_RUNTIMES = {
    "docker": "docker",
    "libpod": "podman",
    "crio": "cri-o",
    "cri-containerd": "containerd",
    "containerd": "containerd",
    "nerdctl": "containerd",
    "buildkit": "buildkit",
    "ecs": "docker",
    "garden": "garden",
    "actions_job": "docker",
}
_MONITORS = ("libpod-conmon", "crio-conmon")  # a process of the runtime beside each container
_LXC = re.compile(r"^lxc\.payload\.(.+)$")
_MACHINE = re.compile(r"^machine-(.+)\.scope$")
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")


class CgroupNames(NamedTuple):
    """What a cgroup path tells; an empty string where it does not. `container` is the start of
    its id, or its name where the runtime has no ids."""

    unit: str
    container: str
    runtime: str = ""


NOTHING = CgroupNames("", "")


def parse_cgroup(text: str) -> CgroupNames:
    """The names in the text of /proc/PID/cgroup.

    The deepest service or container counts. With both hierarchies the v2 line counts when it says
    something, else the v1 line of systemd, else any line.
    """
    paths = _paths(text)
    for controllers in ["v2", "name=systemd", *paths]:
        names = parse_path(paths.get(controllers, ""))
        if names != NOTHING:
            return names
    return NOTHING


def parse_v2(text: str) -> CgroupNames:
    """The same of the second version's line alone."""
    return parse_path(_paths(text).get("v2", ""))


def parse_path(path: str) -> CgroupNames:
    """The names in one cgroup path."""
    names = NOTHING
    above = ""
    for part in path.split("/"):
        if part.endswith(".service"):
            unit = _unescape(part.removesuffix(".service"))
            names = names._replace(unit=unit)
        else:
            # The unit above a container is its runtime's; one inside it counts.
            names = _container(part, above) or names
        above = part
    return names


def _container(part: str, above: str) -> CgroupNames | None:
    """The container that the folder `part` below `above` is of."""
    if part.count(":") == 2:  # containerd with its systemd driver set up half: slice:prefix:id
        _, prefix, name = part.split(":")
        found = _SCOPE.match(f"{prefix}-{name}")
    else:
        found = _SCOPE.match(part)
    if found:
        if found[1] in _MONITORS:
            return None
        return CgroupNames("", found[2][:SHOWN_ID], _RUNTIMES.get(found[1], ""))
    bare = _BARE.match(part)
    if bare:
        return CgroupNames("", bare[1][:SHOWN_ID], _RUNTIMES.get(above, ""))
    payload = _LXC.match(part)
    if payload:
        return CgroupNames("", _unescape(payload[1]), "lxc")
    if above in ("lxc", "lxc.payload") and part:  # before LXC 4
        return CgroupNames("", _unescape(part), "lxc")
    machine = _MACHINE.match(part)
    if machine:
        name = _unescape(machine[1])
        return CgroupNames("", name, "qemu" if name.startswith("qemu-") else "systemd-nspawn")
    return None


def _paths(text: str) -> dict[str, str]:
    """Paths by their controllers; that of the second version by "v2"."""
    paths = {}
    for line in text.split("\n"):  # the one character that no name of a cgroup holds
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        paths["v2" if hierarchy == "0" else controllers] = path
    return paths


def _unescape(name: str) -> str:
    """systemd's escapes of unit names (man 5 systemd.unit)."""
    return _ESCAPE.sub(lambda match: chr(int(match.group(1), 16)), name)
