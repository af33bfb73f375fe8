"""One folder of the spool, by descriptor: whole files or none, and no trust in the other side.

Sampler and shipper are different users that may both write here, and the shipper is the one that
an attacker reaches first. So the folder is held open (nobody can swap it for a link), files are
made with O_EXCL and opened with O_NOFOLLOW, and only regular files of a bounded size are read.
"""

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from node_agent.errors import (
    SpoolAccessError,
    SpoolError,
    SpoolFileError,
    SpoolFullError,
    SpoolReadOnlyError,
)
from node_agent.spool.entries import TEMPORARY, Stored
from node_agent.spool.sized_file import SizedFile

FOLDER_MODE = 0o2770  # set-group-ID: what one user makes, the other's group may use
FILE_MODE = 0o640
# A day of batches with their definitions is 17,000 files. Whoever may write here may make millions:
# what a listing holds in memory has to have an end.
MAX_LISTED = 50_000
STALE_TEMPORARY_S = 600.0  # longer than a child takes to make an extract
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OVERWRITE_FLAGS = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Folder:
    """An open folder. Every method raises SpoolError (or a subclass that names the cause).

    `foreign` counts what was found and removed that is no regular file: nothing of ours."""

    def __init__(self, root: Path, name: str) -> None:
        """Open `root`/`name`, making it (and `root`) where it is missing."""
        self.path = root / name
        self.name = name
        self._count = 0
        self._watched_fd: int | None = None
        self.foreign = 0
        with translated(root, "make"):
            os.close(_open_folder(root))
        with translated(self.path, "open or make"):
            self._fd = _open_folder(self.path)

    def close(self) -> None:
        os.close(self._fd)
        if self._watched_fd is not None:
            os.close(self._watched_fd)

    def watch(self) -> None:
        """Have the kernel send SIGIO to this process whenever a file is finished in here."""
        with translated(self.path, "watch"):
            if self._watched_fd is None:
                # Not a duplicate, of which scandir() closes one each time: that ends the watch.
                self._watched_fd = os.open(".", _FOLDER_FLAGS, dir_fd=self._fd)
            fcntl.fcntl(self._watched_fd, fcntl.F_NOTIFY, fcntl.DN_RENAME | fcntl.DN_MULTISHOT)

    def names(self) -> list[str]:
        """Names of the finished files, unordered."""
        with translated(self.path, "list"), os.scandir(self._fd) as scan:
            names = islice((entry.name for entry in scan), MAX_LISTED)
            return [name for name in names if not name.startswith(TEMPORARY)]

    def files(self) -> list[Stored]:
        """The finished files, at most MAX_LISTED. Removes unfinished ones that nobody writes any
        more, and whatever is no regular file: links, pipes, empty folders."""
        found = []
        now_s = time.time()
        with translated(self.path, "list"), os.scandir(self._fd) as scan:
            for entry in islice(scan, MAX_LISTED):
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # the other process was quicker
                    continue
                if not stat.S_ISREG(status.st_mode):
                    self.foreign += 1
                    with contextlib.suppress(SpoolError):
                        self.remove(entry.name)
                elif not entry.name.startswith(TEMPORARY):
                    found.append(Stored(self.name, entry.name, status.st_mtime, status.st_size))
                elif now_s - status.st_mtime > STALE_TEMPORARY_S:
                    with contextlib.suppress(SpoolError):  # a read-only disk can still be listed
                        self.remove(entry.name)
        return found

    def modified_s(self, name: str) -> float | None:
        """Unix time at which the file was finished; None when it is gone."""
        with translated(self.path, "read"):
            try:
                return os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_mtime
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """Put `data` under `name`, replacing what was there: all of it, or nothing changes.

        With `durable` the file is on the disk when this returns.
        """
        with self.writing(name, durable=durable) as descriptor:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]

    @contextlib.contextmanager
    def writing(self, name: str, *, durable: bool = True) -> Iterator[int]:
        """A descriptor to write to; its content gets `name` when the block ends without error."""
        self._count += 1
        temporary = f"{TEMPORARY}{os.getpid()}-{self._count}-{time.monotonic_ns()}"
        with translated(self.path, "write to"):
            descriptor = os.open(temporary, _WRITE_FLAGS, FILE_MODE, dir_fd=self._fd)
            try:
                os.fchmod(descriptor, FILE_MODE)  # whatever the umask took away
                yield descriptor
                if durable:
                    os.fsync(descriptor)
                os.rename(temporary, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=self._fd)
                raise
            finally:
                os.close(descriptor)
            if durable:
                os.fsync(self._fd)

    def overwrite(self, name: str, data: bytes) -> bool:
        """Put `data`, padded by spaces, over the content of the file, if it is there and not
        shorter: for a full disk, where only what a file has already can be used. False when that
        is not possible. Whoever reads meanwhile may see a mixture."""
        with translated(self.path / name, "write to"):
            try:
                descriptor = os.open(name, _OVERWRITE_FLAGS, dir_fd=self._fd)
            except FileNotFoundError:
                return False
            try:
                status = os.fstat(descriptor)
                own = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
                if not own or status.st_size < len(data):
                    return False
                padded = data.ljust(status.st_size)
                return os.pwrite(descriptor, padded, 0) == len(padded)
            finally:
                os.close(descriptor)

    def open(self, name: str, limit_bytes: int) -> SizedFile | None:
        """The file as long as it is now, opened for reading without buffer; None when it is gone.

        Raises SpoolFileError when it is no regular file or larger than `limit_bytes`.
        """
        with translated(self.path / name, "read"):
            try:
                descriptor = os.open(name, _READ_FLAGS, dir_fd=self._fd)
            except FileNotFoundError:
                return None
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > limit_bytes:
                os.close(descriptor)
                raise SpoolFileError(
                    f"{_shown(self.path / name)} has {status.st_size} bytes or is no regular file; "
                    f"at most {limit_bytes} bytes are read"
                )
            return SizedFile(descriptor, status.st_size)

    def read(self, name: str, limit_bytes: int) -> bytes | None:
        """The content of the file; None when it is gone. Raises SpoolFileError too when it grows
        meanwhile: nobody writes to a file that is finished."""
        file = self.open(name, limit_bytes)
        if file is None:
            return None
        with file, translated(self.path / name, "read"):
            data = file.read()
            if file.has_grown:
                raise SpoolFileError(f"{_shown(self.path / name)} grew while it was read")
            return data

    def remove(self, name: str) -> bool:
        """Remove the file (or empty folder); False when it was gone already."""
        with translated(self.path / name, "remove"):
            try:
                os.unlink(name, dir_fd=self._fd)
            except FileNotFoundError:
                return False
            except IsADirectoryError:
                os.rmdir(name, dir_fd=self._fd)
            return True

    def move(self, name: str, other: "Folder") -> bool:
        """Move the file to `other`; False when it was gone already."""
        with translated(self.path / name, "move"):
            try:
                os.rename(name, name, src_dir_fd=self._fd, dst_dir_fd=other._fd)
            except FileNotFoundError:
                return False
            return True


@contextlib.contextmanager
def translated(path: Path, action: str) -> Iterator[None]:
    """Turn an OSError into the SpoolError that names its cause and remedy."""
    try:
        yield
    except OSError as error:
        message = f"cannot {action} {_shown(path)}: {error.strerror}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SpoolFullError(
                message, "Free disk space there, or point spool_dir at another file system."
            ) from error
        if error.errno == errno.EROFS:
            raise SpoolReadOnlyError(
                message, "Mount the file system read-write, or point spool_dir elsewhere."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            remedy = "Run it as root, or name a folder of this user's own with --spool-dir."
            if os.path.lexists(path):
                remedy = "Give the folder to the group of both agent users, with mode 2770 "
                remedy += f"(chgrp -R GROUP {path} && chmod 2770 {path})."
            raise SpoolAccessError(message, remedy) from error
        if error.errno in (errno.ELOOP, errno.ENXIO):  # O_NOFOLLOW met a link; a socket
            raise SpoolFileError(message) from error
        raise SpoolError(message, "Check spool_dir and its file system.") from error


def _shown(path: Path) -> str:
    """For words: whoever may write there gives names of any bytes."""
    return os.fsencode(path).decode("utf-8", "replace")


def _open_folder(path: Path) -> int:
    """A descriptor of the folder at `path`, made where it is missing."""
    try:
        return os.open(path, _FOLDER_FLAGS)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o770)
    descriptor = os.open(path, _FOLDER_FLAGS)
    # A set-group-ID parent hands its bit on; a sandbox (RestrictSUIDSGID) may forbid to set it.
    if stat.S_IMODE(os.fstat(descriptor).st_mode) != FOLDER_MODE:
        try:
            os.fchmod(descriptor, FOLDER_MODE)  # not by name: that may be another's link by now
        except OSError:
            os.close(descriptor)
            raise
    return descriptor
