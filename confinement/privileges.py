"""Give up users, capabilities and resources: what is gone cannot be had again."""

import ctypes
import os
import resource
from contextlib import suppress

NOBODY = 65534
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522


def limit(limits: dict[int, int]) -> None:
    """Set limits of resources (RLIMIT_...), soft and hard, where they are not lower already."""
    for kind, value in limits.items():
        with suppress(OSError, ValueError):
            resource.setrlimit(kind, (value, value))


def become(uid: int, gid: int) -> None:
    """Be another user, in no other group. Raises OSError."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def drop_bounding_set() -> None:
    """Let no program that is executed gain a capability. Needs CAP_SETPCAP; without it there is
    nothing to be had either, by an ordinary user with no new privileges."""
    libc = ctypes.CDLL(None, use_errno=True)
    number = 0
    while libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) >= 0:
        libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
        number += 1


def drop_capabilities() -> None:
    """No capabilities, and no way to new ones. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    head = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if libc.capset(ctypes.byref(head), ctypes.byref(nothing)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"capabilities cannot be dropped: {os.strerror(number)}")
