"""Open the file behind a mapping of another process, without trusting that process.

Only a regular file with the mapping's inode on the mapping's file system is accepted: a process can
replace its files, but it cannot make us read one that it has not mapped. The name is looked up by
node_agent.processes.lookup, which no link and no file system that hangs leads astray.
"""

import errno
import os
import stat
from typing import NamedTuple

from node_agent.processes.errors import FileUnavailableError
from node_agent.processes.lookup import ForeignMountError, find_in_root, open_found
from node_agent.processes.mappings import Mapping
from node_agent.processes.mounts import Mount, may_read_device


class FileKey(NamedTuple):
    """What tells a file, and its content, from all others. Inode numbers are equal on different
    devices and are used again; the time of the last change can't be set by anybody."""

    device: int
    inode: int
    changed_ns: int
    modified_ns: int
    size: int


def find_mapped(tgid: int, mapping: Mapping) -> int:
    """An O_PATH descriptor of the file behind `mapping`, found by its name; the caller closes it.

    Looked for in the process's root, then in our own: the process may have ended, or have gone to
    another root. A deleted one is found by its range of memory, where that is allowed. Raises
    FileUnavailableError.
    """
    foreign: OSError | None = None
    for root in (tgid, os.getpid()):
        try:
            found = find_in_root(root, _name(mapping))
        except ForeignMountError as error:
            foreign = foreign or error
            continue
        except (OSError, ValueError):
            continue
        if is_same_file(os.fstat(found.descriptor), found.mount, mapping):
            return found.descriptor
        os.close(found.descriptor)
    if mapping.deleted and may_read_memory(tgid, mapping):
        found_by_range = _find_by_range(tgid, mapping)
        if found_by_range is not None:
            return found_by_range
    if foreign is not None:
        raise FileUnavailableError(
            f"{_shown(mapping)} is not opened: {foreign.strerror}", reason="file_not_entered"
        )
    raise FileUnavailableError(
        f"{_shown(mapping)} of process {tgid} is deleted, replaced or not readable"
    )


def _find_by_range(tgid: int, mapping: Mapping) -> int | None:
    """That of a deleted file, by its range of memory: for those who may look there
    (CAP_CHECKPOINT_RESTORE)."""
    path = f"/proc/{tgid}/map_files/{mapping.start:x}-{mapping.end:x}"
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_ino == mapping.inode:
        return descriptor
    os.close(descriptor)
    return None


def open_mapped(tgid: int, mapping: Mapping) -> int:
    """A read-only descriptor of the file behind `mapping`; the caller closes it. Raises
    FileUnavailableError."""
    found = find_mapped(tgid, mapping)
    try:
        return open_found(found)
    except OSError as error:
        raise FileUnavailableError(
            f"{_shown(mapping)} of process {tgid} cannot be opened: {error.strerror}"
        ) from error
    finally:
        os.close(found)


def key_of(descriptor: int) -> FileKey:
    """The key of the file that a descriptor (O_PATH too) is of."""
    status = os.fstat(descriptor)
    return FileKey(
        status.st_dev, status.st_ino, status.st_ctime_ns, status.st_mtime_ns, status.st_size
    )


def may_read_memory(tgid: int, mapping: Mapping) -> bool:
    """Whether the pages of a mapped file come without waiting for somebody who serves its file
    system."""
    return may_read_device(tgid, (mapping.major, mapping.minor))


def open_in_root(tgid: int, path: bytes) -> int:
    """A read-only descriptor of the regular file at `path` in the root of process `tgid`: no link
    is followed, nothing blocks. Whose it is is for the caller to check. Raises OSError, for a
    place that is not entered ForeignMountError."""
    found = find_in_root(tgid, path)
    try:
        kind = stat.S_IFMT(os.fstat(found.descriptor).st_mode)
        if kind == stat.S_IFLNK:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if kind != stat.S_IFREG:
            raise OSError(errno.ENXIO, "it is no regular file")
        return open_found(found.descriptor)
    finally:
        os.close(found.descriptor)


def is_same_file(status: os.stat_result, mount: Mount, mapping: Mapping) -> bool:
    """Whether a file found on `mount` is the one that is mapped.

    The mount's device is compared, not that of `status`, which is of a layer (overlayfs) or of a
    subvolume (btrfs): /proc/PID/maps has the file system's. Before Linux 6.7 it has that of the
    layer for files of an overlay, so there the inode must do.
    """
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_ino == mapping.inode
        and (mount.is_overlay or mount.device == (mapping.major, mapping.minor))
    )


def _name(mapping: Mapping) -> bytes:
    if mapping.deleted or not mapping.path.startswith(b"/"):
        raise FileNotFoundError(errno.ENOENT, "the file has no name")
    return mapping.path


def _shown(mapping: Mapping) -> str:
    return mapping.path.decode("utf-8", "replace")
