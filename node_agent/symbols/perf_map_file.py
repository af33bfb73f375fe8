"""Open the perf map that a process wrote of itself, without trusting it or anybody in its /tmp.

The name is /tmp/perf-PID.map in the process's own root, PID being its number in its own (innermost)
PID namespace, as the process knows itself. What is opened is a regular file with this one name that
belongs to the process's user and was written since the process began; no link is followed, and
no file system is entered that may never answer. See docs/decisions/0016-perf-maps.md.
"""

import errno
import os
import stat
import time

from node_agent.processes.errors import ProcessGoneError
from node_agent.processes.files import open_in_root
from node_agent.processes.lookup import ForeignMountError
from node_agent.processes.mappings import check_start, read_process_file
from node_agent.symbols.errors import PerfMapError

# Clocks of two kinds are compared, and file systems keep coarse times.
_STALE_TOLERANCE_S = 5.0


def open_perf_map(tgid: int, start_ns: int) -> int | None:
    """A read-only descriptor of the perf map of process (tgid, start_ns), which the caller closes;
    None when it has none. Raises PerfMapError, its `reason` a word to count by, for a file that is
    not trusted, and ProcessGoneError."""
    user, pid = _identity(tgid)
    path = b"/tmp/perf-%d.map" % pid
    try:
        descriptor = open_in_root(tgid, path)
    except FileNotFoundError:
        return None
    except ForeignMountError as error:
        raise _refusal(tgid, "mount", error.strerror or "its mount is not entered") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _refusal(tgid, "symlink", "a symbolic link leads to it") from error
        if error.errno in (errno.ENXIO, errno.ENOTDIR):
            raise _refusal(tgid, "not_regular", "it is no regular file") from error
        if error.errno == errno.ESRCH:
            raise ProcessGoneError(f"process {tgid} has ended") from error
        raise _refusal(tgid, "denied", error.strerror or "it cannot be opened") from error
    try:
        _check(tgid, start_ns, user, os.fstat(descriptor))
        check_start(tgid, start_ns)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check(tgid: int, start_ns: int, user: int, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _refusal(tgid, "not_regular", "it is no regular file")
    if status.st_uid != user:
        raise _refusal(tgid, "owner", f"it is user {status.st_uid}'s, the process user {user}'s")
    if status.st_nlink != 1:
        raise _refusal(tgid, "hard_link", "it has other names too")
    # Numbers are used again, in containers very soon: this may be an earlier process's.
    started_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + start_ns / 1e9
    if status.st_mtime < started_s - _STALE_TOLERANCE_S:
        raise _refusal(tgid, "stale", "it is older than the process")


def _identity(tgid: int) -> tuple[int, int]:
    """Effective user and innermost number of a process (format: man 5 proc_pid_status)."""
    try:
        text = read_process_file(tgid, "status")
    except OSError as error:
        raise ProcessGoneError(f"process {tgid} has ended: {error.strerror}") from error
    fields = dict(line.partition(b":")[::2] for line in text.split(b"\n"))
    try:
        return int(fields[b"Uid"].split()[1]), int(fields.get(b"NSpid", b"%d" % tgid).split()[-1])
    except (KeyError, IndexError, ValueError) as error:
        raise ProcessGoneError(f"process {tgid} tells nothing of itself") from error


def _refusal(tgid: int, reason: str, words: str) -> PerfMapError:
    return PerfMapError(
        f"the perf map of process {tgid} is not read: {words}",
        "its JIT code stays [jit]",
        reason=reason,
    )
