"""Descriptors that the service manager keeps over a restart of the agent (man 3 sd_notify,
FDSTORE=1; man 3 sd_listen_fds; systemd.service(5), FileDescriptorStoreMax=).

An event keeps its program attached and its maps alive for as long as somebody holds its
descriptor: so sampling goes on while the agent is away, crashed or being upgraded. The manager
lets go of them when the service is stopped.
"""

import os
from array import array
from collections.abc import Mapping, MutableMapping

_FIRST = 3  # SD_LISTEN_FDS_START
_PREFIX = "ff"
_TIMEOUT_S = 2.0


class DescriptorStore:
    """What was handed to this process, and what is handed on. Without a manager (no NOTIFY_SOCKET)
    nothing is ever kept.

    Each descriptor is stored as ff.LAYOUT.NAME. A layout is whatever has to be equal for the next
    process to go on with what this one made; it holds no dot and no colon.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._stored: dict[str, int] = {}
        for name, fd in _handed_over(environ):
            if name in self._stored:
                os.close(fd)
            else:
                self._stored[name] = fd
        self._ours = set(self._stored)  # to be closed by this class, until they are taken

    def take(self, layout: str) -> dict[str, int]:
        """The descriptors kept under `layout`, by name; they are the caller's, and stay stored.

        Those of another layout are closed and removed from the store.
        """
        start = f"{_PREFIX}.{layout}."
        for name in [name for name in self._stored if not name.startswith(start)]:
            self._drop(name)
        self._ours.clear()
        return {name.removeprefix(start): fd for name, fd in self._stored.items()}

    def others(self, layout: str) -> dict[str, dict[str, int]]:
        """The descriptors kept under other layouts, by layout and name; they stay the store's."""
        found: dict[str, dict[str, int]] = {}
        for stored, fd in self._stored.items():
            other, _, name = stored.removeprefix(f"{_PREFIX}.").partition(".")
            if other != layout:
                found.setdefault(other, {})[name] = fd
        return found

    def keep(self, layout: str, descriptors: Mapping[str, int]) -> None:
        """Store exactly these, whatever was stored before."""
        wanted = {f"{_PREFIX}.{layout}.{name}": fd for name, fd in descriptors.items()}
        for name in [name for name, fd in self._stored.items() if wanted.get(name) != fd]:
            self._drop(name)
        for name, fd in wanted.items():
            if name not in self._stored and self._address:
                self._stored[name] = fd
                # The manager would drop an event at once: to poll() it looks like a hang-up.
                self._send(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", fd)

    def discard(self) -> None:
        """Leave nothing in the store, so that what others closed leaves the kernel."""
        self.keep("", {})

    def _drop(self, name: str) -> None:
        fd = self._stored.pop(name)
        if name in self._ours:
            self._ours.remove(name)
            os.close(fd)
        if self._address:
            self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def _send(self, state: str, fd: int | None = None) -> None:
        """A manager that does not listen keeps nothing; the agent then starts anew next time."""
        import socket  # only here: half a megabyte that agents outside systemd don't need

        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [fd]))] if fd else []
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(_TIMEOUT_S)
            try:
                sender.sendmsg([state.encode()], rights, 0, address)
            except OSError:
                return


def _handed_over(environ: MutableMapping[str, str]) -> list[tuple[str, int]]:
    """Names and descriptors meant for this process; takes the variables out of `environ`, since
    children must not think that they are meant."""
    values = [environ.pop(f"LISTEN_{part}", "") for part in ("PID", "FDS", "FDNAMES")]
    process, number, names = values
    if process != str(os.getpid()) or not number.isdecimal():
        return []
    fds = range(_FIRST, _FIRST + int(number))
    for fd in fds:
        os.set_inheritable(fd, False)
    return list(zip(names.split(":"), fds, strict=False))
