"""Unwind rows kept on disk by build id, in a folder that only the sampler's user may enter: who
could write it could make every stack of the host wrong."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from node_agent.unwind.errors import RowFileError
from node_agent.unwind.row_file import MAX_FILE_BYTES, decode_rows
from node_agent.unwind.rows import PackedRows

LIMIT_BYTES = 64 << 20
LEFT_FREE_BYTES = 64 << 20  # of the disk: rows can be made again, batches can't
_SUFFIX, _DRAFT = ".rows", ".new"


class RowCache:
    """Rows in `folder`, at most `limit_bytes` of them; those not used for longest go first.

    Trouble with the disk is no error: there are just no rows, and `counts` says why (`found`,
    `missing`, `broken`, `stored`, `evicted`, `too_large`, `disk_full`, `unreadable`,
    `unwritable`).
    """

    def __init__(self, folder: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self.counts: dict[str, int] = {}
        self.last_error = ""
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._held_bytes: int | None = None  # not known yet
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for draft in folder.glob(f"*{_DRAFT}"):  # of a run that was killed
                draft.unlink()
        except OSError as error:
            self._trouble("unwritable", error)

    def holds(self, build_id: bytes) -> bool:
        """Whether there is a file of the build's; `missing` counts where there is none."""
        is_there = self._path(build_id).is_file()
        if not is_there:
            self._count("missing")
        return is_there

    def get(self, build_id: bytes) -> PackedRows | None:
        """The rows of a build; None when there are none, or they were broken and are gone now."""
        path = self._path(build_id)
        try:
            rows = decode_rows(build_id, _read(path))
            os.utime(path, follow_symlinks=False)
        except FileNotFoundError:
            self._count("missing")
            return None
        except OSError as error:
            self._trouble("unreadable", error)
            return None
        except RowFileError as error:
            self._trouble("broken", error)
            with suppress(OSError):
                path.unlink()
            return None
        self._count("found")
        return rows

    def put(self, build_id: bytes, data: bytes) -> None:
        """Keep a build's file of rows, which was found to be right."""
        if len(data) > self._limit_bytes:
            self._count("too_large")
            return
        path = self._path(build_id)
        draft = path.with_suffix(_DRAFT)
        try:
            disk = os.statvfs(self._folder)
            if disk.f_bavail * disk.f_frsize < len(data) + LEFT_FREE_BYTES:
                self._count("disk_full")
                return
            self._make_room(len(data))
            with suppress(FileNotFoundError):
                draft.unlink()
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
                file.write(data)
            draft.replace(path)  # a checksum tells what a crash left incomplete
        except OSError as error:
            self._trouble("unwritable", error)
            with suppress(OSError):
                draft.unlink()
            return
        self._count("stored")

    def _make_room(self, wanted: int) -> None:
        """Let the oldest go until there is room. The folder is listed the first time and when it
        seems to be full: a file that takes another's place counts twice until then."""
        held = self._held_bytes
        if held is None or held + wanted > self._limit_bytes:
            held = self._evict(wanted)
        self._held_bytes = held + wanted

    def _evict(self, wanted: int) -> int:
        """Bytes that are left when there is room."""
        files = []
        for entry in os.scandir(self._folder):
            if entry.name.endswith(_SUFFIX):
                status = entry.stat(follow_symlinks=False)
                files.append((status.st_mtime_ns, status.st_size, entry.path))
        held = sum(size for _, size, _ in files)
        files.sort()
        for _, size, path in files:
            if held + wanted <= self._limit_bytes:
                break
            Path(path).unlink(missing_ok=True)
            held -= size
            self._count("evicted")
        return held

    def _path(self, build_id: bytes) -> Path:
        return self._folder / f"{build_id.hex()}{_SUFFIX}"

    def _trouble(self, reason: str, error: Exception) -> None:
        self._count(reason)
        self.last_error = f"the cache of unwind rows: {error}"

    def _count(self, reason: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1


def _read(path: Path) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid()):
            raise RowFileError(f"{path.name} is not a file of our own")
        if status.st_size > MAX_FILE_BYTES:
            raise RowFileError(f"{path.name} has {status.st_size} bytes")
        return file.read(MAX_FILE_BYTES)
