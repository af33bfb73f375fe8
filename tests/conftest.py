"""A real Postgres and a real Valkey for the whole session, started as `flamefleet up` starts them.

With FLAMEFLEET_REQUIRE=1 (set by `make test`) or CI=true a skipped test fails the run: an ability
that is missing must not look like success.
"""

import importlib.util
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import uuid4

import pytest

from aggregator.local.account import server_account
from aggregator.local.postgres import VOLATILE, Postgres, create_postgres
from aggregator.local.process import Process
from aggregator.local.valkey import Valkey, create_valkey
from node_agent.spool import Spool

_TEMPLATE = "flamefleet_template"
_PATIENCE_S = 300.0
# `make test` runs these and the boots of other kernels beside all others, in a process of its own:
# chosen so that both take about as long.
_BESIDE = {
    *("browser", "contract", "deploy", "unit"),
    *("integration/alerts", "integration/flamegraph", "integration/test_celery.py"),
}
_BOOTED = "boot"  # the fixture that boots other kernels
_CPYTHON = re.compile(r"3\.(?:[89]|1[0-4])(?=\.|$)")


def find_cpythons() -> dict[str, Path]:
    """Interpreters of CPython 3.8 to 3.14 by the name of their build: those in PATH under their
    version's name, and all that pyenv has."""
    found = {}
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    path_without_shims = os.pathsep.join(f for f in folders if "shims" not in Path(f).parts)
    for minor in range(8, 15):
        path = shutil.which(f"python3.{minor}", path=path_without_shims)
        if path is not None:
            found[f"3.{minor}-path"] = Path(path)
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    for folder in versions.glob("3.*"):
        if _CPYTHON.match(folder.name) and (folder / "bin/python3").exists():
            found[f"{folder.name}-pyenv"] = folder / "bin/python3"
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with the argument `cpython` runs once for each interpreter that is here."""
    if "cpython" in metafunc.fixturenames:
        found = find_cpythons()
        metafunc.parametrize("cpython", found.values(), ids=found)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what can run beside the others."""
    here = Path(__file__).parent
    for item in items:
        path = item.path.relative_to(here)
        is_beside = not _BESIDE.isdisjoint(map(str, (path, *path.parents)))
        if is_beside or _BOOTED in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.beside)


# Tests count on the rate that they ask for, on a machine that other tests load too: the governor's
# own tests set a budget that can be exceeded.
os.environ["FLAMEFLEET_BUDGET_PERCENT"] = "100"
os.environ["FLAMEFLEET_BUDGET_USER_PERCENT"] = "100"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Turn a skip into a failure where every ability is required."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]  # pytest types a wrapper's yield as None
    required = os.environ.get("FLAMEFLEET_REQUIRE") == "1" or os.environ.get("CI") == "true"
    if required and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, but every ability is required here: {report.longrepr}"


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., Any]:
    """wait_until(holds, what, limit_s=600): what `holds()` gives, as soon as that is true; else the
    test fails and says what never came. `what` may be a function that is asked then.

    The limit costs time only where something is wrong: it is for a machine that is much slower.
    """

    def wait(
        holds: Callable[[], Any], what: str | Callable[[], str] = "", limit_s: float = 600.0
    ) -> Any:
        limit = time.monotonic() + limit_s
        while not (found := holds()):
            if time.monotonic() > limit:
                words = what() if callable(what) else what
                pytest.fail(f"waited {limit_s:.0f} s in vain: {words or 'it never came to hold'}")
            time.sleep(0.05)
        return found

    return wait


@pytest.fixture(scope="session")
def find_port() -> Callable[[], int]:
    """find_port(): a TCP port of the loopback that is free now, and that the kernel gives to nobody
    who does not ask for it by number."""
    below_ephemeral = range(15_000, 32_000)
    chance = random.SystemRandom()  # other runs of these tests look for ports, too

    def find() -> int:
        while True:
            port = chance.choice(below_ephemeral)
            with socket.socket() as probe, suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port

    return find


@pytest.fixture(scope="session")
def open_packages() -> Iterator[str]:
    """A folder for sys.path that every user can read, with the agent and what it needs.

    The checkout itself may lie where other users cannot go, in /root for example.
    """
    folder = Path(tempfile.mkdtemp(prefix="ff-packages-"))
    folder.chmod(0o755)
    umask = os.umask(0o022)
    for name in ("wire", "confinement", "node_agent", "msgspec", "zstandard", "tomli"):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            skipped = shutil.ignore_patterns("__pycache__")
            shutil.copytree(Path(spec.origin).parent, folder / name, ignore=skipped)
    os.umask(umask)
    for path in folder.rglob("*"):
        path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    yield str(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def servers_dir() -> Iterator[Path]:
    """A folder with a short path for the servers' data, sockets and logs."""
    folder = Path(tempfile.mkdtemp(prefix="ff-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres_server(servers_dir: Path) -> Iterator[Postgres]:
    """A running Postgres with an empty cluster."""
    postgres = create_postgres(
        servers_dir / "postgres", servers_dir / "pg", server_account(), VOLATILE
    )
    postgres.initialise()
    with (servers_dir / "postgres.log").open("wb") as log:
        process = Process(postgres.command(), log)
    postgres.wait_ready(process, _PATIENCE_S)
    yield postgres
    assert process.stop(_PATIENCE_S), "Postgres had to be killed"


@pytest.fixture(scope="session")
def postgres_template(postgres_server: Postgres) -> str:
    """The name of a migrated database to clone."""
    from aggregator.db import run_migrations

    postgres_server.create_database(_TEMPLATE)
    run_migrations(postgres_server.url(_TEMPLATE))
    return _TEMPLATE


@pytest.fixture
def empty_postgres_url(postgres_server: Postgres) -> Iterator[str]:
    """SQLAlchemy URL of a new database without tables."""
    name = f"test_{uuid4().hex}"
    postgres_server.create_database(name)
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def postgres_url(postgres_server: Postgres, postgres_template: str) -> Iterator[str]:
    """SQLAlchemy URL (postgresql+psycopg) of a new, migrated database of the test's own."""
    name = f"test_{uuid4().hex}"
    postgres_server.create_database(name, postgres_template)
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def valkey_server(servers_dir: Path) -> Iterator[Valkey]:
    """A running Valkey."""
    valkey = create_valkey(servers_dir / "vk", server_account())
    with (servers_dir / "valkey.log").open("wb") as log:
        process = Process(valkey.command(), log)
    valkey.wait_ready(process, _PATIENCE_S)
    yield valkey
    assert process.stop(_PATIENCE_S), "Valkey had to be killed"


@pytest.fixture
def valkey_url(valkey_server: Valkey) -> str:
    """Broker URL (redis+socket://, as Celery reads it) of an emptied database."""
    assert valkey_server.ask(b"FLUSHALL\r\n") == b"+OK\r\n"
    return valkey_server.url()


@pytest.fixture
def killed_at() -> Callable[[int, Callable[[], object]], bool]:
    """Run something in a child that is killed (SIGKILL) when the agent's code reaches its n-th
    line; says whether it finished before."""

    def run(line: int, act: Callable[[], object]) -> bool:
        child = os.fork()
        if child == 0:
            left = line

            def trace(frame: FrameType, event: str, argument: object) -> Any:
                nonlocal left
                if "node_agent" not in frame.f_code.co_filename:
                    return None
                left -= event == "line"
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return trace

            try:
                sys.settrace(trace)
                act()
                sys.settrace(None)
            except BaseException:
                os._exit(1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, -signal.SIGKILL)
        return status == 0

    return run


@pytest.fixture(scope="session")
def await_program(wait_until: Callable[..., Any]) -> Callable[[subprocess.Popen[Any]], None]:
    """await_program(process): until its program is mapped and has its arguments. `Popen` returns
    before that: the pipe that tells it of the exec is closed in an address space yet empty
    (`begin_new_exec` in fs/exec.c)."""

    def wait(process: subprocess.Popen[Any]) -> None:
        path = Path(f"/proc/{process.pid}/cmdline")
        wait_until(path.read_bytes, lambda: f"the program of process {process.pid}")

    return wait


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """An empty spool."""
    spool = Spool(tmp_path / "spool")
    spool.create()
    return spool
