"""Give up what a child that parses foreign files does not need. Called first thing in the child,
when it has imported what it will use."""

import ctypes
import os
import resource
import signal
from contextlib import suppress

from confinement.privileges import NOBODY, become, drop_bounding_set, drop_capabilities, limit
from confinement.seccomp import computing_filter, install, reading_filter

_PR_SET_PDEATHSIG = 1
WALL_S = 180
# Of the children that the ration holds back: that protects the host. At a low priority a busy host
# would put off for minutes what the ration allows now (docs/decisions/0019).
RATIONED_NICENESS = 0


def confine(
    cpu_s: int,
    memory_bytes: int,
    output_bytes: int,
    niceness: int,
    wall_s: int = WALL_S,
    reads_files: bool = False,
) -> None:
    """No capabilities, no way to new ones, limits of CPU time, time, address space and size of
    files written, a priority lower by `niceness`; the child ends with its parent. Root becomes
    nobody: without capabilities it could still write every file of the system. From then on the
    child reads and writes what it has open, and does nothing else; it opens other files only with
    `reads_files`, and those to read.

    Works as any user. Raises OSError when something of it can't be done.
    """
    # Root's sampler has no CAP_KILL, so it could not end a child that is nobody: it ends itself.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(wall_s)
    with suppress(OSError):
        os.nice(niceness)
    limit(
        {
            resource.RLIMIT_CPU: cpu_s,
            resource.RLIMIT_AS: memory_bytes,
            resource.RLIMIT_FSIZE: output_bytes,
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_NPROC: 0,
        }
    )
    drop_bounding_set()
    if os.geteuid() == 0:
        with suppress(OSError):  # a container's root may lack CAP_SETUID: no capabilities then
            become(NOBODY, NOBODY)
    # After that change of users, which would clear it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    drop_capabilities()
    install(reading_filter() if reads_files else computing_filter())
