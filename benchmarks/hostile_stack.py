"""The centre that is attacked: Postgres, Valkey, aggregator and worker, as `flamefleet up` has
them, without an agent. All on the loopback."""

import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from aggregator.access.service import create_token
from aggregator.db import create_sync_database, run_migrations, session_scope
from aggregator.local.account import server_account
from aggregator.local.commands import Commands
from aggregator.local.data_folder import DataFolder
from aggregator.local.options import UpOptions, centre_toml
from aggregator.local.postgres import create_postgres
from aggregator.local.process import Command, Process
from aggregator.local.valkey import create_valkey

PATIENCE_S = 120.0
DATABASE = "flamefleet"


@dataclass(frozen=True)
class Stack:
    """A running centre. `pid` is the aggregator's."""

    port: int
    pid: int
    tokens: dict[str, str]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def memory_mib(self, name: str = "VmRSS") -> float:
        """A line of the aggregator's /proc/PID/status."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition(f"{name}:")[2].split()[0]) / 1024

    def forget_peak(self) -> None:
        """Let VmHWM begin anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


@contextmanager
def running_stack(nodes: Sequence[str], webhooks: Sequence[str] = ()) -> Iterator[Stack]:
    """A fresh centre that knows `nodes` and sends its alerts to `webhooks`."""
    with tempfile.TemporaryDirectory(prefix="ff-hostile-") as work, ExitStack() as stack:
        folder = Path(work)
        folder.chmod(0o711)
        account = server_account()

        def start(name: str, command: Command) -> Process:
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            process = Process(command, log)
            stack.callback(process.stop, PATIENCE_S)
            return process

        postgres = create_postgres(folder / "postgres", folder / "pg", account)
        postgres.initialise()
        postgres.wait_ready(start("postgres", postgres.command()), PATIENCE_S)
        postgres.create_database(DATABASE)
        valkey = create_valkey(folder / "vk", account)
        valkey.wait_ready(start("valkey", valkey.command()), PATIENCE_S)
        url = postgres.url(DATABASE)
        run_migrations(url)
        tokens = _enrol(url, nodes)
        data = DataFolder(folder / "data")
        data.root.mkdir()
        port = _free_port()
        toml = centre_toml(UpOptions(data.root, port), url, valkey.url())
        for webhook in webhooks:
            toml += f'\n[[webhooks]]\nurl = "{webhook}"\nallow_private = true\n'
        data.open_to(account)
        data.write_private(data.centre_config, toml, account)
        commands = Commands(data, account, (postgres.socket_dir, valkey.socket_dir))
        aggregator = start("aggregator", commands.aggregator())
        start("worker", commands.worker())
        _wait_ready(port)
        yield Stack(port, aggregator.pid, tokens, folder / "aggregator.log")


def _enrol(url: str, nodes: Sequence[str]) -> dict[str, str]:
    engine = create_sync_database(url)
    try:
        with session_scope(engine) as session:
            return {node: create_token(session, node) for node in nodes}
    finally:
        engine.dispose()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_ready(port: int) -> None:
    limit = time.monotonic() + PATIENCE_S
    while time.monotonic() < limit:
        try:
            connection = HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"the aggregator was not ready within {PATIENCE_S:.0f} s")
