"""The PID namespace that process ids are reported in: the agent's own."""

import os
from pathlib import Path

from node_agent.kernel.errors import NamespaceError

# PROC_PID_INIT_INO of include/linux/proc_ns.h: the same on every kernel.
INITIAL_PID_NAMESPACE = 0xEFFFFFFC


def pid_namespace_setting() -> int:
    """The inode of this process's PID namespace, or 0 in the initial one (the fast path in BPF).

    Raises NamespaceError when /proc is of another namespace: ids from the kernel program could
    then not be looked up there.
    """
    what = "Process ids cannot be read"
    remedy = "Mount a proc file system of the agent's own PID namespace on /proc."
    try:
        own = Path("/proc/self").readlink().name
        inode = Path("/proc/self/ns/pid").stat().st_ino
    except OSError as error:
        raise NamespaceError(what, f"/proc/self: {error.strerror}", remedy) from error
    if own != str(os.getpid()):
        raise NamespaceError(
            what, f"/proc calls this process {own}, it is {os.getpid()} to itself", remedy
        )
    return 0 if inode == INITIAL_PID_NAMESPACE else inode
