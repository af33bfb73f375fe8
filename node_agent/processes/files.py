"""Open the file behind a mapping of another process, without trusting that process.

The name is resolved inside the process's root by openat2 (man 2 openat2), without symbolic and
magic links, never blocking, and only a regular file with the mapping's inode is accepted: a process
can replace its files, but it cannot make us read one that it has not mapped.
"""

import ctypes
import errno
import os
import stat
from pathlib import Path

from node_agent.processes.errors import FileUnavailableError
from node_agent.processes.mappings import Mapping

_SYS_OPENAT2 = 437  # the same on every architecture
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_IN_ROOT = 0x10
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY
_DELETED = b" (deleted)"
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
        status = os.stat(b"/proc/%d/root%b" % (tgid, mapping.path))  # noqa: PTH116
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
    """Whether the mapped file lies on a FUSE file system (or nobody can tell)."""
    if mapping.major != 0:  # a block device of its own: FUSE has only anonymous ones
        return False
    wanted = b"%d:%d" % (mapping.major, mapping.minor)
    try:
        text = Path(f"/proc/{tgid}/mountinfo").read_bytes()
    except OSError:
        return True
    for line in text.splitlines():
        fields = line.split(b" ")
        if len(fields) > 6 and fields[2] == wanted and b"-" in fields:
            return fields[fields.index(b"-") + 1].startswith(b"fuse")
    return False  # btrfs and overlayfs show other numbers in maps than in mountinfo


def _open_by_name(tgid: int, mapping: Mapping) -> int:
    return _open_beneath(f"/proc/{tgid}/root", mapping)


def _open_in_own_root(_tgid: int, mapping: Mapping) -> int:
    return _open_beneath("/", mapping)


def _open_beneath(root: str, mapping: Mapping) -> int:
    if mapping.deleted or not mapping.path.startswith(b"/"):
        raise FileNotFoundError(errno.ENOENT, "the file has no name")
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = _OpenHow(_FLAGS, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS)
        descriptor = _libc.syscall(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_int(directory),
            ctypes.c_char_p(mapping.path),
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
