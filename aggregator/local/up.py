"""`flamefleet up`: the centre and this host's agent, started, watched and stopped together."""

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from aggregator.local import api
from aggregator.local.account import Account, server_account
from aggregator.local.commands import Commands, agent_command
from aggregator.local.data_folder import DataFolder
from aggregator.local.errors import InUseError, ProfilingRefusedError, StartError
from aggregator.local.leftovers import adopt_orphans, end_orphans, settle
from aggregator.local.next_steps import try_next
from aggregator.local.options import HOST, UpOptions, agent_toml, centre_toml
from aggregator.local.perf_events import perf_events_allowed
from aggregator.local.ports import require_free_port
from aggregator.local.postgres import Postgres, create_postgres
from aggregator.local.process import run_to_end
from aggregator.local.progress import Progress
from aggregator.local.running import written_down
from aggregator.local.supervisor import Supervisor
from aggregator.local.valkey import Valkey, create_valkey
from aggregator.local.waiting import StopRequestedError, Waiting

DATABASE = "flamefleet"
# The names of the processes in the line of --json, in its order.
REPORTED = ("sampler", "shipper", "aggregator", "worker", "postgres")
_READY_TIMEOUT_S = 300.0  # a machine with other work takes its time
_DRAIN_S = 30.0
_TICK_S = 0.5
_PROFILING_IMPOSSIBLE = 3  # exit status of `flamefleet-agent check`


def run_up(options: UpOptions) -> int:
    """Run until a stop signal or for `options.run_s`; the exit status. Raises LocalError."""
    progress = Progress(sys.stderr)
    folder = DataFolder(options.data_dir.absolute())
    account = server_account()
    folder.create()
    lock = folder.acquire()
    supervisor = Supervisor(folder.logs, folder.processes, progress.say)

    def wake() -> None:
        supervisor.tick()
        progress.tick()

    waiting = Waiting(wake)
    adopt_orphans()
    try:
        allowed = perf_events_allowed(progress.say, folder.perf_event_paranoid)
        with suppress(StopRequestedError), allowed:
            start = _Start(options, folder, account, supervisor, waiting, progress)
            start.run()
            with written_down(options, folder):
                start.announce()
                _stay(waiting, options.run_s)
    finally:
        with progress.step("stopping"):
            _stop(folder, supervisor, waiting, progress.detail)
            end_orphans()
        folder.processes.unlink(missing_ok=True)
        os.close(lock)
    return 0


def _stay(waiting: Waiting, run_s: float | None) -> None:
    limit = None if run_s is None else time.monotonic() + run_s
    while limit is None or time.monotonic() < limit:
        waiting.idle(_TICK_S if limit is None else min(_TICK_S, limit - time.monotonic()))


class _Start:
    """The steps from an empty or an old data folder to a page with data."""

    def __init__(
        self,
        options: UpOptions,
        folder: DataFolder,
        account: Account | None,
        supervisor: Supervisor,
        waiting: Waiting,
        progress: Progress,
    ) -> None:
        self.options = options
        self.folder = folder
        self.account = account
        self.supervisor = supervisor
        self.waiting = waiting
        self.progress = progress
        self.node = os.uname().nodename
        self.began_s = time.time()

    def run(self) -> None:
        self.progress.say(f"Flamefleet on this machine; data and logs in {self.folder.root}")
        with self.progress.step("clearing up after an earlier run"):
            settle(self.folder.processes)
        with self.progress.step(f"port {self.options.port} of {HOST}"):
            require_free_port(HOST, self.options.port)
        with self.progress.step("checking what this host allows"):
            self._check_host()
        self.folder.open_to(self.account)
        postgres, valkey = self._start_servers()
        database_url, broker_url = postgres.url(DATABASE), valkey.url()
        with self.progress.step("database schema and this host's token"):
            self._prepare_database(database_url)
        texts = {
            self.folder.centre_config: centre_toml(self.options, database_url, broker_url),
            self.folder.agent_config: agent_toml(self.options, self.folder, self.node),
        }
        for path, text in texts.items():
            self.folder.write_private(path, text, self.account)
        servers = (postgres.socket_dir, valkey.socket_dir)
        commands = Commands(self.folder, self.account, servers)
        # The sampler first: the spool holds what it takes until the aggregator answers.
        self.supervisor.add(commands.sampler())
        self.supervisor.add(commands.aggregator())
        self.supervisor.add(commands.worker())
        with self.progress.step("aggregator"):
            self._wait("aggregator", lambda: api.answers(HOST, self.options.port))
        self.supervisor.add(commands.shipper())
        with self.progress.step("worker"):
            self._wait("worker", self._worker_takes_work)
        with self.progress.step("first samples"):
            self._wait("sampler", self._has_samples)

    def announce(self) -> None:
        """Say where the page is, and what can be done now."""
        if self.options.json_lines:
            pids = {name: self.supervisor.pid(name) for name in REPORTED}
            print(json.dumps({"url": self.options.url, "pids": pids}), flush=True)
        else:
            print(f"\n  Live flamegraph of this machine: {self.options.url}\n", flush=True)
        self.progress.say(
            "The agent is learning this host: for some minutes it reads the files of its programs, "
            "each once, and costs more CPU than later."
        )
        for words in try_next(self.node, self.folder.agent_config):
            self.progress.say(words)
        if self.options.run_s is None:
            self.progress.say("Stop with Ctrl-C; the data stays.")

    def _check_host(self) -> None:
        status, output = run_to_end(agent_command("check", "check"))
        if status == _PROFILING_IMPOSSIBLE:
            raise ProfilingRefusedError(f"this host cannot be profiled:\n{output}")
        if status != 0:
            raise StartError(f"flamefleet-agent check failed with status {status}:\n{output}")

    def _start_servers(self) -> tuple[Postgres, Valkey]:
        """The running database, which may be empty, and the broker."""
        postgres = create_postgres(self.folder.postgres, self.folder.sockets, self.account)
        if not postgres.initialised:
            with self.progress.step("making a Postgres cluster"):
                postgres.initialise()
        with self.progress.step("Postgres"):
            self._start_postgres(postgres)
        valkey = create_valkey(self.folder.sockets, self.account)
        with self.progress.step("Valkey"):
            process = self.supervisor.add(valkey.command())
            with self.supervisor.explained("valkey"):
                valkey.wait_ready(process, idle=self.waiting.idle)
        return postgres, valkey

    def _start_postgres(self, postgres: Postgres) -> None:
        if not self.waiting.until(postgres.may_start, 10.0):
            raise InUseError(f"an earlier Postgres still runs in {postgres.data_dir}: stop it")
        process = self.supervisor.add(postgres.command(), postgres.may_start)
        with self.supervisor.explained("postgres"):
            postgres.wait_ready(process, idle=self.waiting.idle)
        postgres.create_database(DATABASE)

    def _prepare_database(self, database_url: str) -> None:
        from aggregator.access.service import create_token
        from aggregator.db import create_sync_database, run_migrations, session_scope

        run_migrations(database_url)
        token_file = self.folder.agent_token(self.node)
        if token_file.exists():  # made by an earlier run, in this same database
            self.folder.write_private(token_file, token_file.read_text(), self.account)
            return
        engine = create_sync_database(database_url)
        try:
            with session_scope(engine) as session:
                token = create_token(session, self.node)
        finally:
            engine.dispose()
        self.folder.write_private(token_file, token + "\n", self.account)

    def _has_samples(self) -> bool:
        return api.samples_since(HOST, self.options.port, self.began_s) > 0

    def _worker_takes_work(self) -> bool:
        ready = self.folder.worker_ready
        return ready.exists() and ready.read_text() == f"{self.supervisor.pid('worker')}\n"

    def _wait(self, name: str, holds: Callable[[], bool]) -> None:
        def holds_or_fails() -> bool:
            self.supervisor.require_all()
            return holds()

        if not self.waiting.until(holds_or_fails, _READY_TIMEOUT_S):
            raise StartError(
                f"{name}: nothing to see after {_READY_TIMEOUT_S:.0f} s. The last errors are\n"
                f"{self.supervisor.troubles()}"
            )


def _stop(
    folder: DataFolder, supervisor: Supervisor, waiting: Waiting, detail: Callable[[str], None]
) -> None:
    """End the parts in the order in which data flows through them."""

    def patience() -> float | None:
        return 0.5 if waiting.requested_again() else None  # a second Ctrl-C: no more waiting

    detail("sampler: its last batch")
    supervisor.stop("sampler", patience())
    limit = time.monotonic() + _DRAIN_S
    while supervisor.runs("shipper") and time.monotonic() < limit and patience() is None:
        if not any((folder.spool / "batches").glob("*.batch")):
            break
        detail("shipper: delivers the rest")
        time.sleep(0.1)
    for name in ("shipper", "worker", "aggregator", "valkey", "postgres"):
        detail(name)
        supervisor.stop(name, patience())
