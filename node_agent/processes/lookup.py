"""Find a file by its name in a process's root, without waiting for a file system that may never
answer, and without following a link.

The way is walked mount by mount (man 2 openat2): inside of one no other can be entered, whatever is
mounted meanwhile, and each is known by its id, which the kernel tells without asking the file
system, before anything on it is looked up.
"""

import ctypes
import errno
import os
import struct
from typing import NamedTuple

from node_agent.processes.mounts import Mount, View, may_enter, view_of

_SYS_OPENAT2 = 437  # the same on every architecture
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x01, 0x02, 0x04, 0x08
_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_AT_EMPTY_PATH, _AT_STATX_DONT_SYNC = 0x1000, 0x4000
_STATX_MNT_ID = 0x1000
_STATX = struct.Struct("<I132xIIQ")  # stx_mask, stx_dev_major, stx_dev_minor, stx_mnt_id
_libc = ctypes.CDLL(None, use_errno=True)
# Prototypes of our own: ctypes converts arguments faster where it knows them.
_openat2 = ctypes.CFUNCTYPE(
    *(ctypes.c_long, ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p),
    *(ctypes.c_size_t,),
    use_errno=True,
)(("syscall", _libc))
_statx = ctypes.CFUNCTYPE(
    *(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p),
    use_errno=True,
)(("statx", _libc))


class ForeignMountError(OSError):
    """A file lies on a file system that is not entered, or nobody can tell on which."""


class Found(NamedTuple):
    """An O_PATH descriptor of whatever is there, for the caller to close, and its mount."""

    descriptor: int
    mount: Mount


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def find_in_root(tgid: int, path: bytes) -> Found:
    """What is at the absolute `path` in the root of process `tgid`. Raises OSError, for a place
    that is not entered ForeignMountError."""
    try:
        return _walk(tgid, path, view_of(tgid))
    except ForeignMountError:  # perhaps it was mounted within this second
        return _walk(tgid, path, view_of(tgid, is_fresh=True))


def _walk(tgid: int, path: bytes, view: View | None) -> Found:
    if view is None:
        raise ProcessLookupError(errno.ESRCH, "the process has ended, or may not be read")
    way = view.on_way(path)
    # A process whose root is a folder and no mount does not see the mount that this is on.
    sees_root = bool(way) and way[0].point == b"/"
    for mount in way:
        _require(mount, view)
    here = os.open(f"/proc/{tgid}/root", os.O_PATH | os.O_CLOEXEC)
    try:
        mount = _mount_of(here, tgid, view, (b"/",)) if sees_root else _own_mount_of(here)
        done = b"/"
        for step in way[sees_root:]:
            there = _enter(here, _below(done, step.point))
            if there is not None:
                os.close(here)
                here, done = there, step.point
                mount = _mount_of(here, tgid, view, (step.point, mount.point))
        rest = _below(done, path)
        if rest:
            there = _open_beneath(here, rest, _NO_XDEV)
            os.close(here)
            here = there
    except BaseException:
        os.close(here)
        raise
    return Found(here, mount)


def open_found(descriptor: int) -> int:
    """A read-only descriptor, not blocking, of what an O_PATH descriptor is of: a regular file,
    which the caller has seen to. Raises OSError."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    return os.open(f"/proc/self/fd/{descriptor}", flags)


def _enter(here: int, path: bytes) -> int | None:
    """An O_PATH descriptor of the mount at `path` beneath `here`; None where nothing is (another
    mount hides it)."""
    folder, _, name = path.rpartition(b"/")
    try:
        if not folder:
            return _open_beneath(here, name, 0)
        parent = _open_beneath(here, folder, _NO_XDEV)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return _open_beneath(parent, name, 0)
    except (FileNotFoundError, NotADirectoryError):
        return None
    finally:
        os.close(parent)


def _open_beneath(folder: int, path: bytes, resolve: int) -> int:
    how = _OpenHow(_PATH, 0, resolve | _BENEATH | _NO_MAGICLINKS | _NO_SYMLINKS)
    descriptor = _openat2(_SYS_OPENAT2, folder, path, ctypes.addressof(how), ctypes.sizeof(how))
    if descriptor < 0:
        number = ctypes.get_errno()
        if number == errno.EXDEV:
            raise _foreign("something was mounted there meanwhile")
        raise OSError(number, os.strerror(number))
    return int(descriptor)


def _mount_of(descriptor: int, tgid: int, view: View, points: tuple[bytes, ...]) -> Mount:
    """The mount that an O_PATH descriptor is on, which is at one of `points` and may be entered.

    The descriptor holds it, so it cannot become another one any more. But ids and numbers of
    devices without a block device are used again: where everybody may mount, this one may be newer
    than the view.
    """
    number, device = _look_at(descriptor)
    if device[0] == 0 and view.has_own_users:
        view = view_of(tgid, is_fresh=True) or View({}, {})
    return _known(view, number, device, points)


def _own_mount_of(descriptor: int) -> Mount:
    """The same, where it is a mount that the agent itself sees, wherever that is."""
    number, device = _look_at(descriptor)
    return _known(view_of(os.getpid()) or View({}, {}), number, device, None)


def _look_at(descriptor: int) -> tuple[int | None, tuple[int, int]]:
    """The mount's id, None where the kernel does not tell, and the device as stat has it."""
    status = ctypes.create_string_buffer(256)
    flags = _AT_EMPTY_PATH | _AT_STATX_DONT_SYNC
    if _statx(descriptor, b"", flags, _STATX_MNT_ID, ctypes.addressof(status)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    mask, major, minor, number = _STATX.unpack_from(status)
    return (number if mask & _STATX_MNT_ID else None), (major, minor)


def _known(
    view: View, number: int | None, device: tuple[int, int], points: tuple[bytes, ...] | None
) -> Mount:
    mount = view.mounts.get(number) if number is not None else None
    if mount is None or (points is not None and mount.point not in points):
        raise _foreign("its mount is not known")
    if mount.device[0] and mount.device != device:
        raise _foreign("its mount is another by now")
    _require(mount, view)
    return mount


def _require(mount: Mount, view: View) -> None:
    if not may_enter(mount, view):
        raise _foreign(f"it lies on {mount.kind.decode(errors='replace')}")


def _below(above: bytes, path: bytes) -> bytes:
    return path[len(above) :].lstrip(b"/")


def _foreign(words: str) -> ForeignMountError:
    return ForeignMountError(errno.EXDEV, f"{words}; its file system may never answer")
