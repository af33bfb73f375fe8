"""The mounts that a process sees (man 5 proc_pid_mountinfo), and which of them may be entered.

Whoever looks at a file waits for its file system. A file system in memory or on a block device of
this host answers; one that a process or another machine serves may never do so. Every user can
mount FUSE in a user namespace of their own, and an overlay over it.
"""

import os
import re
import time
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

_MAX_BYTES = 4 << 20
# Without a block device, but of this kernel alone; virtiofs is the host of a virtual machine.
_LOCAL = frozenset(
    (
        *(b"tmpfs", b"ramfs", b"rootfs", b"devtmpfs", b"hugetlbfs"),
        *(b"btrfs", b"zfs", b"bcachefs", b"ubifs", b"virtiofs"),
    )
)
_OVERLAY = b"overlay"
_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")
# Fields may hold any byte but space and line feed; the optional ones end at the first lone hyphen.
_LINE = re.compile(
    rb"^(\d{1,10}) (\d{1,10}) (\d{1,10}):(\d{1,10}) [^ \n]+ ([^ \n]+) "
    rb"[^ \n]+(?: [^ \n]+)*? - ([^ \n]+)",
    re.M,
)


class Mount(NamedTuple):
    """`device` is the file system's: what /proc/PID/maps shows, also where stat shows another one
    (overlayfs: of the layer, btrfs: of the subvolume)."""

    id: int
    parent: int
    device: tuple[int, int]
    point: bytes
    kind: bytes

    @property
    def is_overlay(self) -> bool:
        """Whether files of other file systems are behind it."""
        return self.kind == _OVERLAY


class View(NamedTuple):
    """Mounts by their id, and the topmost one by the place where it is."""

    mounts: dict[int, Mount]
    points: dict[bytes, Mount]
    has_own_users: bool = False  # in a user namespace of its own, where everybody may mount

    def on_way(self, path: bytes) -> list[Mount]:
        """The mounts at `path` and above it, from the top on."""
        found = []
        end = 0
        while end >= 0:
            mount = self.points.get(path[:end] or b"/")
            if mount is not None:
                found.append(mount)
            end = path.find(b"/", end + 1)
        mount = self.points.get(path)
        return [*found, mount] if mount is not None and mount not in found else found

    def of_device(self, device: tuple[int, int]) -> Mount | None:
        """A mount of that file system."""
        return next((mount for mount in self.mounts.values() if mount.device == device), None)


def parse_view(text: bytes, has_own_users: bool = False) -> View:
    """The text of a mountinfo file."""
    mounts: dict[int, Mount] = {}
    points: dict[bytes, Mount] = {}
    for number, parent, major, minor, point, kind in _LINE.findall(text):
        place = _OCTAL.sub(_unescape, point)
        mount = Mount(int(number), int(parent), (int(major), int(minor)), place, kind)
        mounts[mount.id] = mount
        below = points.get(place)
        if below is None or below.parent != mount.id:
            points[place] = mount
    return View(mounts, points, has_own_users)


class Place(NamedTuple):
    """Where a process is: its mount namespace, whether in a user namespace of its own, its root."""

    namespace: int
    has_own_users: bool
    root: str


def place_of(tgid: int) -> Place | None:
    """Where process `tgid` is, as of this second; None when nobody can tell."""
    return _place(tgid, int(time.monotonic()))


def view_of(tgid: int, is_fresh: bool = False) -> View | None:
    """What process `tgid` sees, as of this second or of now; None when nobody can tell."""
    now_s = int(time.monotonic())
    place = _place(tgid, now_s)
    if place is None:
        return None
    return _read(tgid, place.has_own_users) if is_fresh else _read_once(tgid, place, now_s)


def may_enter(mount: Mount, view: View) -> bool:
    """Whether a file there can be looked at without waiting for anybody."""
    if mount.device[0]:
        return mount.kind != b"fuseblk"
    if mount.kind in _LOCAL:
        return True
    own = view_of(os.getpid())
    if own is None:
        return False
    if mount.is_overlay:
        # Who may mount one only with a user namespace may have put it over FUSE.
        return not view.has_own_users or own.of_device(mount.device) is not None
    root = own.points.get(b"/")  # without it this process would not run
    return root is not None and root.device == mount.device


def may_read_device(tgid: int, device: tuple[int, int]) -> bool:
    """Whether pages of a file on that device come without waiting for anybody."""
    for view in (view_of(tgid), view_of(os.getpid())):
        mount = view.of_device(device) if view is not None else None
        if mount is not None and view is not None:
            return may_enter(mount, view)
    return device[0] != 0  # a block device of its own: FUSE has only anonymous ones


@lru_cache(maxsize=8)  # the mappings of one process are looked at one after the other
def _place(tgid: int, _second: int) -> Place | None:
    try:  # none of these asks a file system
        namespace = os.stat(f"/proc/{tgid}/ns/mnt").st_ino  # noqa: PTH116 (often called)
        users = os.stat(f"/proc/{tgid}/ns/user").st_ino  # noqa: PTH116
        return Place(namespace, users != _own_users(), os.readlink(f"/proc/{tgid}/root"))  # noqa: PTH115
    except OSError:
        return None


@lru_cache(maxsize=8)
def _read_once(tgid: int, place: Place, _second: int) -> View | None:
    """Read once for all processes of a container, as a rule."""
    return _read(tgid, place.has_own_users)


def _read(tgid: int, has_own_users: bool) -> View | None:
    try:
        with Path(f"/proc/{tgid}/mountinfo").open("rb") as file:
            text = file.read(_MAX_BYTES)
    except OSError:
        return None
    if len(text) == _MAX_BYTES:
        return None
    return parse_view(text, has_own_users)


@lru_cache(maxsize=1)
def _own_users() -> int:
    return Path("/proc/self/ns/user").stat().st_ino


def _unescape(match: re.Match[bytes]) -> bytes:
    return bytes((int(match[1], 8),))
