"""The port that the page is to be on, and who has it."""

import socket
from contextlib import suppress
from pathlib import Path

from aggregator.local.errors import InUseError
from wire.terminal import printable_line

_LISTENS = "0A"  # proc(5), /proc/net/tcp


def require_free_port(host: str, port: int) -> None:
    """Raise InUseError, which names the process that listens there, where it may be known."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            holder = _holder(port)
            reason = f"{holder} listens there" if holder else error.strerror
            raise InUseError(
                f"port {port} of {host} cannot be used: {reason}. "
                "Stop that, or choose another with --port (make demo PORT=)"
            ) from error


def _holder(port: int) -> str:
    """Name and id of a process that listens on `port`; empty where this user may not know."""
    links = {f"socket:[{inode}]" for inode in _listening(port)}
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):  # ended meanwhile, or another user's
            if str(descriptor.readlink()) in links:
                process = descriptor.parents[1]
                name = (process / "comm").read_text(errors="replace").strip()
                return f"{printable_line(name)} (process {process.name})"
    return ""


def _listening(port: int) -> list[str]:
    inodes = []
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().strip().split("\n")[1:]:
                fields = line.split()
                if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.append(fields[9])
    return inodes
