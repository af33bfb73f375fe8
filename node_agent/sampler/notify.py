"""Tell systemd how we are, by a datagram to NOTIFY_SOCKET (man 3 sd_notify)."""

import os
import time
from collections.abc import Mapping
from contextlib import suppress


class Notifier:
    """Does nothing where there is no socket, as outside systemd."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        microseconds = environ.get("WATCHDOG_USEC", "")
        # Twice as often as systemd recommends, which is at half of its patience.
        self._alive_every_s = int(microseconds) / 4e6 if microseconds.isdigit() else 0.0
        self._alive_due_s = 0.0 if self._alive_every_s else float("inf")

    def is_alive(self) -> None:
        """The sign of life that a unit's WatchdogSec= wants, when it is due; call it often."""
        now_s = time.monotonic()
        if now_s >= self._alive_due_s:
            self._alive_due_s = now_s + self._alive_every_s
            self.send("WATCHDOG=1")

    def send(self, state: str) -> None:
        """Send for example "READY=1". A listener that is gone is not our trouble."""
        if not self._address:
            return
        import socket  # only here: half a megabyte that most runs don't need

        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            with suppress(OSError):
                sender.sendto(state.encode(), address)
