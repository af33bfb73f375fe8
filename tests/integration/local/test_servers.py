"""Postgres, Valkey and children as `flamefleet up` runs them: real servers, real kills."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from aggregator.local.account import Account, blocked_ancestor, server_account
from aggregator.local.binaries import library_folders
from aggregator.local.errors import StartError
from aggregator.local.leftovers import settle
from aggregator.local.postgres import VOLATILE, Postgres, create_postgres
from aggregator.local.process import Command, Process, run_once, run_to_end
from aggregator.local.supervisor import Supervisor, start_ticks
from aggregator.local.valkey import create_valkey

Start = Callable[[Command], Process]
Wait = Callable[..., None]


def executed(pid: int) -> bool:
    """Whether a child has become its `sleep`: before that it is still the launcher."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"/bin/sleep")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Process] = []

    def start_one(command: Command) -> Process:
        with (tmp_path / f"{command.name}.log").open("ab") as log:
            started.append(Process(command, log))
        return started[-1]

    yield start_one
    for process in reversed(started):
        process.stop(wait_s=300)


@pytest.fixture
def account() -> Account | None:
    return server_account()


@pytest.fixture
def closed_folder(tmp_path: Path) -> Path:
    """A folder below one that only its owner may enter."""
    folder = tmp_path / "closed" / "below"
    folder.mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    return folder


@pytest.fixture
def postgres(closed_folder: Path, account: Account | None) -> Postgres:
    server = create_postgres(closed_folder / "pg", closed_folder / "s", account, VOLATILE)
    server.initialise()
    return server


def test_postgres_keeps_its_data_over_a_kill(
    postgres: Postgres, start: Start, wait_until: Wait
) -> None:
    process = start(postgres.command())
    postgres.wait_ready(process)
    assert postgres.create_database("kept")
    with postgres.connect("kept") as connection:
        connection.execute("CREATE TABLE t AS SELECT 7 AS n")
        connection.execute("CHECKPOINT")
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: process.poll() is not None)
    wait_until(postgres.may_start)
    postgres.wait_ready(start(postgres.command()))
    assert not postgres.create_database("kept")
    with postgres.connect("kept") as connection:
        assert connection.execute("SELECT n FROM t").fetchone() == (7,)


def test_servers_do_not_run_as_root(
    postgres: Postgres, closed_folder: Path, account: Account | None, start: Start
) -> None:
    valkey = create_valkey(closed_folder / "s", account)
    servers = [start(postgres.command()), start(valkey.command())]
    postgres.wait_ready(servers[0])
    valkey.wait_ready(servers[1])
    for server in servers:
        assert Path(f"/proc/{server.pid}").stat().st_uid != 0
    assert postgres.data_dir.stat().st_mode & 0o077 == 0
    assert postgres.socket_dir.stat().st_mode & 0o077 == 0


def test_valkey_wants_its_password_and_no_command_line_has_it(
    closed_folder: Path, account: Account | None, start: Start
) -> None:
    valkey = create_valkey(closed_folder / "s", account)
    process = start(valkey.command())
    valkey.wait_ready(process)
    assert valkey.ask(b"PING\r\n") == b"+PONG\r\n"
    assert valkey.password in valkey.url()
    assert valkey.password not in repr(valkey)
    assert valkey.password not in Path(f"/proc/{process.pid}/cmdline").read_text()
    assert replace(valkey, password="guessed").ask(b"PING\r\n").startswith(b"-WRONGPASS")
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(valkey.socket_path))
        stranger.sendall(b"KEYS *\r\n")
        assert stranger.recv(4096).startswith(b"-NOAUTH")


def test_a_closed_folder_stays_closed_outside(
    postgres: Postgres, start: Start, account: Account | None, closed_folder: Path
) -> None:
    if account is None:
        pytest.skip("needs root: only then the servers run as another user")
    assert blocked_ancestor(postgres.data_dir, account) is not None
    before = Path("/proc/self/mountinfo").read_text()
    process = start(postgres.command())
    postgres.wait_ready(process)
    assert Path("/proc/self/mountinfo").read_text() == before
    listing = Command("ls", ("/bin/ls", str(closed_folder)), account)
    with pytest.raises(StartError, match="Permission denied"):
        run_once(listing)


def test_the_programs_may_lie_in_a_closed_folder_too(
    postgres: Postgres, closed_folder: Path, start: Start
) -> None:
    package = postgres.install.parent
    for folder in (postgres.install, *library_folders(postgres.install)):
        copy = closed_folder / "site" / folder.relative_to(package.parent)
        shutil.copytree(folder, copy, symlinks=True)
    install = closed_folder / "site" / package.name / postgres.install.name
    elsewhere = replace(postgres, install=install)
    process = start(elsewhere.command())
    elsewhere.wait_ready(process)
    assert Path(f"/proc/{process.pid}/cmdline").read_text().startswith(str(closed_folder))


def test_a_pid_file_of_a_killed_server_that_names_a_stranger_is_cleared(
    postgres: Postgres, start: Start, account: Account | None, wait_until: Wait
) -> None:
    stranger = start(Command("stranger", ("/bin/sleep", "100"), account))
    wait_until(lambda: executed(stranger.pid))
    pid_file = postgres.data_dir / "postmaster.pid"
    pid_file.write_text(f"{stranger.pid}\n{postgres.data_dir}\n0\n5432\n\n\n\n")
    status, output = run_to_end(postgres.command(), timeout_s=300)
    assert status != 0
    assert "postmaster.pid" in output, "Postgres itself takes the stranger for a server"
    assert postgres.may_start()
    postgres.wait_ready(start(postgres.command()))


def test_a_running_server_may_not_be_started_again(postgres: Postgres, start: Start) -> None:
    process = start(postgres.command())
    postgres.wait_ready(process)
    assert not postgres.may_start()
    assert (postgres.data_dir / "postmaster.pid").exists()
    assert process.stop()
    assert postgres.may_start()


def test_a_server_that_ends_at_once_is_told_so(postgres: Postgres, start: Start) -> None:
    (postgres.data_dir / "PG_VERSION").write_text("3\n")
    with pytest.raises(StartError, match="ended with status"):
        postgres.wait_ready(start(postgres.command()))


def test_children_end_with_a_killed_parent(tmp_path: Path, wait_until: Wait) -> None:
    script = """
import sys, time
from aggregator.local.account import server_account
from aggregator.local.process import Command, Process
children = [Process(Command("c", ("/bin/sleep", "100"), account), 2)
            for account in (None, server_account())]
print(*(child.pid for child in children), flush=True)
time.sleep(100)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        wait_until(lambda: all(map(executed, pids)))
        parent.kill()
    wait_until(lambda: all(start_ticks(pid) is None for pid in pids))


def test_the_supervisor_starts_a_killed_part_again(tmp_path: Path, wait_until: Wait) -> None:
    said: list[str] = []
    record = tmp_path / "processes.json"
    supervisor = Supervisor(tmp_path, record, said.append)
    first = supervisor.add(Command("part", ("/bin/sleep", "100"))).pid
    os.kill(first, signal.SIGKILL)

    def back() -> bool:
        supervisor.tick()
        return supervisor.pid("part") not in (None, first)

    wait_until(back)
    assert [line.split()[0] for line in said] == ["part", "part"]
    assert "SIGKILL" in said[0]
    second = supervisor.pid("part")
    assert second is not None
    assert f'"pid": {second}' in record.read_text()
    supervisor.stop("part")
    assert start_ticks(second) is None
    assert record.read_text() == "{}"


def test_a_part_that_never_stays_up_ends_the_start_with_its_log(
    tmp_path: Path, wait_until: Wait
) -> None:
    supervisor = Supervisor(tmp_path, tmp_path / "processes.json", lambda line: None)
    supervisor.add(Command("part", ("/bin/sh", "-c", "echo the reason; exit 4")))

    def fails() -> bool:
        supervisor.tick()
        try:
            supervisor.require_all()
        except StartError as error:
            return "the reason" in str(error) and "part.log" in str(error)
        return False

    wait_until(fails)
    supervisor.stop("part")


def test_the_parts_of_a_killed_run_are_waited_for_and_killed_if_need_be(tmp_path: Path) -> None:
    record = tmp_path / "processes.json"
    supervisor = Supervisor(tmp_path, record, lambda line: None)
    pid = supervisor.add(Command("deaf", ("/bin/sh", "-c", "trap '' TERM; sleep 100 & wait"))).pid
    assert settle(record, wait_s=0.2) == ["deaf"]
    assert start_ticks(pid) is None
    assert settle(record) == []
    supervisor.stop("deaf")


def test_the_record_of_a_process_id_that_was_given_away_hurts_nobody(tmp_path: Path) -> None:
    record = tmp_path / "processes.json"
    record.write_text(f'{{"old": {{"pid": {os.getpid()}, "started": 1}}}}')
    assert settle(record, wait_s=0) == []
