"""Open the file behind a mapping of another process, without trusting that process.

The name is resolved inside the process's root by openat2 (man 2 openat2), without symbolic and
magic links, never blocking, and only a regular file with the mapping's inode is accepted: a process
can replace its files, but it cannot make us read one that it has not mapped.
"""

import ctypes
import errno
import os
import re
import stat
import time
from functools import lru_cache
from pathlib import Path

from node_agent.processes.errors import FileUnavailableError
from node_agent.processes.mappings import Mapping

_SYS_OPENAT2 = 437  # the same on every architecture
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_IN_ROOT = 0x10
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY
_MAX_MOUNTINFO_BYTES = 4 << 20
_DEVICE = re.compile(rb"(\d{1,10}):(\d{1,10})")
_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")
_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def stat_mapped(tgid: int, mapping: Mapping) -> os.stat_result | None:
    """Status of the file behind `mapping` by its name, or None when it is not that file (any
    more). Cheap: nothing is opened."""
    if mapping.deleted or is_fuse(tgid, mapping):
        return None
    try:
        # Not Path.stat: the name is bytes, and this is called for every new mapping.
        path = b"/proc/%d/root%b" % (tgid, mapping.path)
        status = os.stat(path, follow_symlinks=False)  # noqa: PTH116 (bytes)
    except (OSError, ValueError):
        return None
    return status if status.st_ino == mapping.inode else None


def open_mapped(tgid: int, mapping: Mapping) -> int:
    """A read-only descriptor of the file behind `mapping`; the caller closes it.

    Tried in this order: its name in the process's root; /proc/PID/map_files, which also reaches
    deleted files (needs CAP_CHECKPOINT_RESTORE); its name in our own root, for processes that
    have ended. Raises FileUnavailableError.
    """
    if is_fuse(tgid, mapping):
        # Whoever serves a FUSE file system can make an open of it hang for ever.
        raise FileUnavailableError(f"{_shown(mapping)} is on a FUSE file system; it is not opened")
    for attempt in (_open_by_name, _open_map_file, _open_in_own_root):
        try:
            descriptor = attempt(tgid, mapping)
        except OSError:
            continue
        if _is_same_file(descriptor, mapping):
            return descriptor
        os.close(descriptor)
    raise FileUnavailableError(
        f"{_shown(mapping)} of process {tgid} is deleted, replaced or not readable"
    )


def is_fuse(tgid: int, mapping: Mapping) -> bool:
    """Whether the mapped file, or a folder on the way to it, lies on a FUSE file system (or nobody
    can tell). A process may have mounted one over the place that it mapped the file from."""
    now_s = int(time.monotonic())
    mounts = _fuse_mounts(tgid, now_s)
    if mounts is None and not Path(f"/proc/{tgid}").exists():
        mounts = _fuse_mounts(
            os.getpid(), now_s
        )  # it has ended: its file is looked for in our root
    if mounts is None:
        return mapping.major == 0  # a block device of its own: FUSE has only anonymous ones
    return any(
        device == (mapping.major, mapping.minor)
        or mapping.path == point
        or mapping.path.startswith(point.rstrip(b"/") + b"/")
        for device, point in mounts
    )


def is_fuse_path(tgid: int, path: bytes) -> bool:
    """Whether `path`, as the process sees it, lies on a FUSE file system (or nobody can tell)."""
    mounts = _fuse_mounts(tgid, int(time.monotonic()))
    return mounts is None or any(
        path == point or path.startswith(point.rstrip(b"/") + b"/") for _, point in mounts
    )


def open_in_root(tgid: int, path: bytes) -> int:
    """A read-only descriptor of `path` in the root of process `tgid`: no link is followed, nothing
    blocks. What it is and whose is for the caller to check. Raises OSError."""
    return _open_beneath(f"/proc/{tgid}/root", path)


@lru_cache(maxsize=2)  # the mappings of one process are looked at one after the other
def _fuse_mounts(tgid: int, _second: int) -> tuple[tuple[tuple[int, int], bytes], ...] | None:
    """Device and mount point of every FUSE file system that the process sees (format: man 5
    proc_pid_mountinfo); None when they can't be told."""
    try:
        with Path(f"/proc/{tgid}/mountinfo").open("rb") as file:
            text = file.read(_MAX_MOUNTINFO_BYTES)
    except OSError:
        return None
    if len(text) == _MAX_MOUNTINFO_BYTES:
        return None
    return parse_fuse_mounts(text)


def parse_fuse_mounts(text: bytes) -> tuple[tuple[tuple[int, int], bytes], ...] | None:
    """The same of the text of a mountinfo file; None for one that no kernel writes."""
    if b" - fuse" not in text:
        return ()  # hardly any process sees one, and the lines can be hundreds
    found = []
    for line in text.split(b"\n"):  # the kernel escapes that character only
        # The optional fields end at the first hyphen that stands alone.
        place, _, kind = line.partition(b" - ")
        fields = place.split(b" ")
        if len(fields) > 4 and kind.startswith(b"fuse"):
            device = _DEVICE.fullmatch(fields[2])
            if device is None:
                return None
            found.append(((int(device[1]), int(device[2])), _unescape(fields[4])))
    return tuple(found)


def _unescape(path: bytes) -> bytes:
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), path)


def _open_by_name(tgid: int, mapping: Mapping) -> int:
    return open_in_root(tgid, _name(mapping))


def _open_in_own_root(_tgid: int, mapping: Mapping) -> int:
    return _open_beneath("/", _name(mapping))


def _name(mapping: Mapping) -> bytes:
    if mapping.deleted or not mapping.path.startswith(b"/"):
        raise FileNotFoundError(errno.ENOENT, "the file has no name")
    return mapping.path


def _open_beneath(root: str, path: bytes) -> int:
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = _OpenHow(_FLAGS, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS)
        descriptor = _libc.syscall(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_int(directory),
            ctypes.c_char_p(path),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return int(descriptor)
    finally:
        os.close(directory)


def _open_map_file(tgid: int, mapping: Mapping) -> int:
    return os.open(
        f"/proc/{tgid}/map_files/{mapping.start:x}-{mapping.end:x}",
        os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY,
    )


def _is_same_file(descriptor: int, mapping: Mapping) -> bool:
    # The device is not compared: overlayfs and btrfs report different ones in maps and in stat.
    status = os.fstat(descriptor)
    return stat.S_ISREG(status.st_mode) and status.st_ino == mapping.inode


def _shown(mapping: Mapping) -> str:
    return mapping.path.decode("utf-8", "replace")
