"""What is mounted where, as this process sees it (man 5 proc, /proc/PID/mountinfo)."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_ESCAPE = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    device: int  # of the file system as the kernel numbers it: major << 20 | minor
    root: str  # the folder of the file system that is mounted
    point: str  # where
    kind: str  # ext4, cgroup2, ...
    options: tuple[str, ...]  # of the file system


def parse_mounts(text: str) -> list[Mount]:
    """The mounts in the order of the text; lines of another form are left out."""
    mounts = []
    for line in text.split("\n"):
        left, _, right = line.partition(" - ")
        fields, tail = left.split(" "), right.split(" ")
        if len(fields) < 6 or len(tail) < 3:
            continue
        major, _, minor = fields[2].partition(":")
        device = int(major) << 20 | int(minor)
        options = tuple(tail[2].split(","))
        mounts.append(Mount(device, _plain(fields[3]), _plain(fields[4]), tail[0], options))
    return mounts


def read_mounts() -> list[Mount]:
    """The mounts of this process."""
    return parse_mounts(Path("/proc/self/mountinfo").read_bytes().decode(errors="surrogateescape"))


def place_in_file_system(path: str, mounts: Iterable[Mount]) -> tuple[int, str] | None:
    """The device and the path from the root of its file system of an absolute `path` without
    symbolic links; None where nothing is mounted above it."""
    found = None
    for mount in mounts:  # of mounts on the same folder the last one counts
        inside = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
        if inside and (found is None or len(mount.point) >= len(found.point)):
            found = mount
    if found is None:
        return None
    return found.device, found.root.rstrip("/") + "/" + path[len(found.point) :].lstrip("/")


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match.group(1), 8)), text)
