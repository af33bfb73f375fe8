"""Give up what a child that parses foreign files does not need. Called first thing in the child."""

import ctypes
import os
import resource
import signal
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522
_NOBODY = 65534
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
) -> None:
    """No capabilities, no way to new ones, limits of CPU time, time, address space and size of
    files written, a priority lower by `niceness`; the child ends with its parent. Root becomes
    nobody: without capabilities it could still write every file of the system.

    Works as any user. Raises OSError when the capabilities can't be dropped.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    # Root's sampler has no CAP_KILL, so it could not end a child that is nobody: it ends itself.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(wall_s)
    with suppress(OSError):
        os.nice(niceness)
    for kind, limit in (
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, output_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        with suppress(OSError, ValueError):  # a limit that is lower already
            resource.setrlimit(kind, (limit, limit))
    if os.geteuid() == 0:
        with suppress(OSError):  # a container's root may lack CAP_SETUID: no capabilities then
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    # After that change of users, which would clear it.
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    head = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if libc.capset(ctypes.byref(head), ctypes.byref(nothing)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"capabilities cannot be dropped: {os.strerror(number)}")
