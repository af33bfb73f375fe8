"""Capabilities of this process: which there are, giving up the rest, raising them while in use.

`setcap` puts them on the interpreter as permitted only (+p): with +ep a bounding set that lacks
one of them would make exec itself fail. So the program raises them, each only around the work that
needs it. See capabilities(7).
"""

import ctypes
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

# Numbers of include/uapi/linux/capability.h.
NUMBERS = {
    "CAP_DAC_OVERRIDE": 1,
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_SYSLOG": 34,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
# What the agent runs with (each has its reason in docs/security.md), and what is missed without
# it; None: nothing works without it.
LOSS = {
    "CAP_BPF": None,
    "CAP_PERFMON": None,
    "CAP_SYS_PTRACE": "processes of other users have no mappings, so their frames no names",
    "CAP_DAC_READ_SEARCH": "programs that this user may not read have no symbols",
    "CAP_SYSLOG": "kernel frames have no names",
}
NEEDED = tuple(LOSS)
# What each kind of work takes, for `using`.
KERNEL_PROGRAMS = ("CAP_BPF", "CAP_PERFMON")
OTHER_PROCESSES = ("CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH")
KERNEL_SYMBOLS = ("CAP_SYSLOG",)
# A child of root gets these from the bounding set, to become nobody before it reads anything.
_FOR_CHILDREN_OF_ROOT = ("CAP_SETUID", "CAP_SETGID")

_VERSION_3 = 0x20080522
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_libc = ctypes.CDLL(None, use_errno=True)
_header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)  # 0: the calling thread
_Words = ctypes.c_uint32 * 6


class CapabilitySets(NamedTuple):
    """The sets of a process as bit masks, and its NoNewPrivs flag."""

    permitted: int
    effective: int
    inheritable: int
    bounding: int
    no_new_privileges: bool

    def holds(self, name: str) -> bool:
        """Whether `name` is effective. CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON, which
        were split from it in 5.8."""
        if self.effective >> NUMBERS[name] & 1:
            return True
        split = name in ("CAP_BPF", "CAP_PERFMON")
        return split and bool(self.effective >> NUMBERS["CAP_SYS_ADMIN"] & 1)


def parse_sets(status: str) -> CapabilitySets:
    """The sets in the text of /proc/PID/status (proc(5))."""
    fields = dict(line.split(":", 1) for line in status.split("\n") if ":" in line)
    return CapabilitySets(
        permitted=int(fields["CapPrm"], 16),
        effective=int(fields["CapEff"], 16),
        inheritable=int(fields["CapInh"], 16),
        bounding=int(fields["CapBnd"], 16),
        no_new_privileges=fields.get("NoNewPrivs", "0").strip() == "1",
    )


def read_sets() -> CapabilitySets:
    """The sets of this process."""
    return parse_sets(Path("/proc/self/status").read_text())


def degradations(sets: CapabilitySets) -> list[str]:
    """What a process with these permitted capabilities goes without, in words; empty if nothing."""
    return [
        f"{name} is not held: {loss}"
        for name, loss in LOSS.items()
        if loss is not None and not sets.permitted >> NUMBERS[name] & 1
    ]


def raise_permitted() -> CapabilitySets:
    """Make every needed capability that is permitted effective; the sets after that."""
    permitted, effective, inheritable = _get()
    _set(permitted, effective | permitted & mask_of(NEEDED), inheritable)
    return read_sets()


def drop_unneeded(keep: tuple[str, ...] = ()) -> CapabilitySets:
    """Give up for good whatever is not in NEEDED or `keep`; nothing is effective afterwards.

    Nothing is handed on to what this process executes (inheritable and ambient sets), and an
    unprivileged user gains nothing by executing a set-user-ID program either. Returns the sets.
    """
    with suppress(OSError, ValueError):  # before 5.11 BPF maps count as locked memory
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2)
    is_root = os.geteuid() == 0
    left = mask_of(NEEDED + (_FOR_CHILDREN_OF_ROOT if is_root else ()))
    number = 0
    while _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) >= 0:
        if not left >> number & 1:
            # Denied without CAP_SETPCAP; then there is nothing in it that could be had either.
            _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
        number += 1
    if not is_root:  # for root it would keep the children from becoming nobody
        _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    permitted, _, _ = _get()
    _set(permitted & mask_of(NEEDED + keep), 0, 0)
    return read_sets()


@contextmanager
def using(*names: str) -> Iterator[None]:
    """Capabilities that are effective inside the block, as far as they are permitted.

    A missing one is not an error here: it shows where it is needed, with the kernel's words. Three
    system calls, together some ten microseconds: for a batch of work, not for every file.
    """
    permitted, effective, inheritable = _get()
    wanted = effective | permitted & mask_of(names)
    if wanted == effective:
        yield
        return
    _set(permitted, wanted, inheritable)
    try:
        yield
    finally:
        _set(permitted, effective, inheritable)


@lru_cache(maxsize=32)
def mask_of(names: tuple[str, ...]) -> int:
    """The bit mask of capabilities."""
    return sum(1 << NUMBERS[name] for name in names)


def _get() -> tuple[int, int, int]:
    """Permitted, effective and inheritable of the calling thread."""
    words = _Words()
    _check(_libc.capget(_header, words), "read")
    low_effective, low_permitted, low_inheritable, effective, permitted, inheritable = words
    return (
        permitted << 32 | low_permitted,
        effective << 32 | low_effective,
        inheritable << 32 | low_inheritable,
    )


def _set(permitted: int, effective: int, inheritable: int) -> None:
    _check(_libc.capset(_header, _packed(permitted, effective, inheritable)), "set")


@lru_cache(maxsize=16)  # the same few again and again
def _packed(permitted: int, effective: int, inheritable: int) -> "ctypes.Array[ctypes.c_uint32]":
    masks = (effective, permitted, inheritable)
    return _Words(*(mask >> shift & 0xFFFFFFFF for shift in (0, 32) for mask in masks))


def _check(result: int, action: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"capabilities cannot be {action}: {os.strerror(number)}")
