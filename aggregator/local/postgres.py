"""A Postgres of our own on a private socket, from the binaries of a PyPI wheel."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from aggregator.local.account import Account, own_folder
from aggregator.local.binaries import library_folders, postgres_folder
from aggregator.local.process import Command, Process, run_once, wait_for_answer
from aggregator.local.sockets import socket_folder

USER = "flamefleet"
# The demo's load is one host; the defaults suit a server with a machine of its own.
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "50",
    "shared_buffers": "64MB",
    "jit": "off",
    "log_line_prefix": "%m [%p] ",
}
# For tests: the data may be lost with the machine.
VOLATILE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True)
class Postgres:
    """A cluster in `data_dir`, reached through a socket in `socket_dir`.

    Whoever may enter `socket_dir` (mode 0700, of the account) may connect: no password.
    """

    data_dir: Path
    socket_dir: Path
    account: Account | None
    install: Path
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def initialised(self) -> bool:
        return (self.data_dir / "PG_VERSION").exists()

    def initialise(self) -> None:
        """Make the cluster. Raises StartError with initdb's words."""
        own_folder(self.data_dir, self.account)
        argv = [str(self.install / "bin/initdb"), "-D", str(self.data_dir), "-U", USER]
        argv += ["--auth=trust", "-E", "UTF8", "--locale-provider=builtin"]
        argv += ["--builtin-locale=C.UTF-8", "--locale=C", "--no-instructions"]
        run_once(Command("initdb", tuple(argv), self.account, self._folders()))

    def command(self) -> Command:
        """The server in the foreground. SIGINT is its fast shutdown, which waits for no client."""
        argv = [str(self.install / "bin/postgres"), "-D", str(self.data_dir)]
        argv += ["-k", str(self.socket_dir)]
        for name, value in {**_SETTINGS, **dict(self.settings)}.items():
            argv += ["-c", f"{name}={value}"]
        return Command(
            "postgres", tuple(argv), self.account, self._folders(), stop_signal=signal.SIGINT
        )

    def may_start(self) -> bool:
        """False while a process of an earlier server of this folder is still there.

        Once there is none, a pid file left by one that was killed is removed: Postgres would take
        any living process of its user that has since got that pid for the old server.
        """
        if not self.data_dir.exists():
            return True
        folder = self.data_dir.stat()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                cwd = (process / "cwd").stat()
            except OSError:
                continue  # ended meanwhile, or another user's
            if (cwd.st_dev, cwd.st_ino) == (folder.st_dev, folder.st_ino):
                return False
        (self.data_dir / "postmaster.pid").unlink(missing_ok=True)
        return True

    def url(self, database: str) -> str:
        """SQLAlchemy's URL of `database`."""
        host = quote(str(self.socket_dir), safe="")
        return f"postgresql+psycopg://{USER}@/{database}?host={host}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """A connection in autocommit mode, for administration."""
        return psycopg.connect(
            host=str(self.socket_dir), user=USER, dbname=database, autocommit=True
        )

    def wait_ready(
        self,
        process: Process,
        timeout_s: float = 120.0,
        idle: Callable[[float], None] = time.sleep,
    ) -> None:
        """Return when the server answers; `idle` passes the time between tries.

        Raises StartError when it ends or takes too long.
        """
        wait_for_answer(process, "Postgres", self._answers, timeout_s, idle)

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def create_database(self, name: str, template: str | None = None) -> bool:
        """Make database `name` if it is missing; True if it was made."""
        with self.connect() as connection:
            row = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
            if row.fetchone() is not None:
                return False
            statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
            if template is not None:
                statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
            connection.execute(statement)
            return True

    def drop_database(self, name: str) -> None:
        """Remove database `name` and end its connections."""
        with self.connect() as connection:
            statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
            connection.execute(statement.format(sql.Identifier(name)))

    def _folders(self) -> tuple[Path, ...]:
        libraries = library_folders(self.install)
        return (self.install, *libraries, self.data_dir, self.socket_dir)


def create_postgres(
    data_dir: Path,
    run_dir: Path,
    account: Account | None,
    settings: dict[str, str] | None = None,
) -> Postgres:
    """A `Postgres` whose socket is in `run_dir` (or near it). Raises ServerMissingError."""
    install = postgres_folder(account)
    return Postgres(
        data_dir,
        socket_folder(run_dir, account),
        account,
        install,
        tuple((settings or {}).items()),
    )
