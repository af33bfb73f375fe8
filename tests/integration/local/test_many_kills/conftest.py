"""The parts on a sample's way as processes of their own, and a witness of every batch."""

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from aggregator.access.service import create_token
from aggregator.db import create_sync_database, run_migrations, session_scope
from aggregator.local.account import server_account
from aggregator.local.postgres import Postgres, create_postgres
from aggregator.local.process import Command, Process
from node_agent.spool import Spool

NODE, DATABASE = "node-1", "flamefleet"
PARTS = ("sampler", "shipper", "aggregator", "postgres")
PATIENCE_S = 600.0
MOST_PENDING = 20  # batches in the spool


@dataclass
class Pipeline:
    """The four parts on a sample's way; all are started by the test's own thread."""

    postgres: Postgres
    commands: dict[str, Command]
    spool: Spool
    witness: Any  # of the folder above
    logs: Path
    running: dict[str, Process] = field(default_factory=dict)
    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))

    def start(self, name: str) -> None:
        """Start a part; its output is added to its log."""
        self.running.pop(name, None)
        if name == "postgres":
            self.wait(self.postgres.may_start)  # its children end by themselves
        with (self.logs / f"{name}.log").open("ab") as log:
            self.running[name] = Process(self.commands[name], log)

    def kill(self, name: str) -> None:
        """Kill a part wherever it is, and start it again."""
        assert self.running[name].poll() is None, f"{name} ended by itself"
        os.kill(self.running[name].pid, signal.SIGKILL)
        assert self.running[name].stop()
        self.kills[name] += 1
        self.start(name)

    def wait(self, holds: Callable[[], bool]) -> None:
        """Until `holds()`; a part that ended by itself meanwhile is started again."""
        limit = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < limit, "waited in vain"
            self.tend()
            time.sleep(0.02)

    def tend(self) -> None:
        """Start what gave up because another part was away, as a service manager does."""
        for name, process in list(self.running.items()):
            if process.poll() is not None:
                self.start(name)

    def wait_delivered(self) -> None:
        """Until a batch that is not there yet has gone all the way, through all four parts.

        A backlog goes oldest first and with pauses. Where the machine is too busy to deliver two
        batches a second it would grow for ever, so the sampler is held while it is long.
        """
        known = set(self.witness.seen)

        def has_arrived() -> bool:
            pending = set(self.spool.pending())
            new = set(self.witness.seen) - known
            self.hold_sampler(bool(new) and len(pending) > MOST_PENDING)
            return bool(new - pending)

        self.wait(has_arrived)
        self.hold_sampler(False)

    def hold_sampler(self, is_held: bool) -> None:
        """Stop it where it is, or let it go on."""
        os.kill(self.running["sampler"].pid, signal.SIGSTOP if is_held else signal.SIGCONT)

    def drain(self) -> None:
        """End the sampler in order and wait until nothing is left to deliver."""
        assert self.running.pop("sampler").stop(PATIENCE_S)
        self.wait(lambda: not self.spool.pending())

    def stop(self) -> None:
        """End all parts; Postgres last."""
        for name in PARTS:
            if name in self.running:
                self.running[name].stop()
        self.witness.stop()


@pytest.fixture
def pipeline(
    tmp_path: Path, valkey_url: str, free_port: int, witness_of: Callable[[Path, Path], Any]
) -> Iterator[Pipeline]:
    folder = Path(tempfile.mkdtemp(prefix="ff-kills-"))  # short: it holds a socket
    folder.chmod(0o711)
    postgres = create_postgres(folder / "postgres", folder / "pg", server_account())
    postgres.initialise()
    spool = Spool(tmp_path / "spool", 256 << 20, 86_400.0)
    spool.create()
    token, config = tmp_path / "token", tmp_path / "agent.toml"
    config.write_text(
        f'[agent]\nname = "{NODE}"\nrate_hz = 49\ninterval_s = 0.5\nspool_dir = "{spool.root}"\n'
        f'[ship]\nurl = "http://127.0.0.1:{free_port}"\ntoken_file = "{token}"\n'
    )
    binaries = Path(sys.executable).parent
    agent = (str(binaries / "flamefleet-agent"),)
    url = postgres.url(DATABASE)
    serve = (str(binaries / "flamefleet"), "serve", "--host", "127.0.0.1", "--port", str(free_port))
    commands = {
        # Three crashes would detach it; here they are ours.
        "sampler": Command(
            "sampler",
            (*agent, "run", "--config", str(config), "--reset-breaker"),
            keeps_capabilities=True,
        ),
        "shipper": Command("shipper", (*agent, "ship", "--config", str(config))),
        "aggregator": Command(
            "aggregator",
            (*serve, "--database-url", url, "--broker-url", valkey_url),
            keeps_capabilities=True,  # the servers' sockets are another user's
        ),
        "postgres": postgres.command(),
    }
    witness = witness_of(spool.root / "batches", tmp_path / "kept")
    pipeline = Pipeline(postgres, commands, spool, witness, tmp_path)
    try:
        pipeline.start("postgres")
        postgres.wait_ready(pipeline.running["postgres"], PATIENCE_S)
        postgres.create_database(DATABASE)
        run_migrations(url)
        engine = create_sync_database(url)
        with session_scope(engine) as session:
            token.write_text(create_token(session, NODE))
        engine.dispose()
        token.chmod(0o600)
        yield pipeline
    finally:
        pipeline.stop()
        shutil.rmtree(folder)
