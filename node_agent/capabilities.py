"""Capabilities of this process: which there are, and raising those that the file gives.

`setcap` puts them on the interpreter as permitted only (+p): with +ep a bounding set that lacks
one of them would make exec itself fail. So the program raises them. See capabilities(7).
"""

import os
from pathlib import Path
from typing import NamedTuple

# Numbers of include/uapi/linux/capability.h.
NUMBERS = {
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_SYSLOG": 34,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
# What the agent runs with; each has its reason in docs/security.md.
NEEDED = ("CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_SYSLOG")
_VERSION_3 = 0x20080522


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
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
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


def raise_permitted() -> CapabilitySets:
    """Make every needed capability that is permitted effective; the sets after that."""
    sets = read_sets()
    wanted = sum(1 << NUMBERS[name] for name in NEEDED) & sets.permitted
    if wanted & ~sets.effective == 0:
        return sets
    import ctypes

    effective = sets.effective | wanted
    words = []
    for shift in (0, 32):
        for mask in (effective, sets.permitted, sets.inheritable):
            words.append(mask >> shift & 0xFFFFFFFF)
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, os.getpid())
    if libc.capset(ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)(*words))) != 0:
        return sets  # what is missing shows where it is needed, with the error of the kernel
    return read_sets()
