"""A real aggregator on a real Postgres and Valkey, and nodes that speak to it over HTTP."""

import asyncio
import io
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import numpy as np
import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer
from blockbuster import blockbuster_ctx
from sqlalchemy import Engine, text

from aggregator.access.service import create_token
from aggregator.app import create_app
from aggregator.config import CentreConfig
from aggregator.db import create_sync_database, session_scope
from aggregator.local.account import server_account
from aggregator.local.postgres import create_postgres
from aggregator.local.process import Process
from node_agent.shipper.client import Client
from node_agent.shipper.report import Report
from node_agent.shipper.shipper import Shipper
from node_agent.spool import Spool
from wire.codec import decode, encode
from wire.hashes import module_hash, name_hash, pack_frame, stack_hash
from wire.schema import Answer, Batch, Definitions, Module, ModuleKind, Name, Overhead, Series

INTERVAL_NS = 10 * 10**9
# A module that is in place without having been run is of another type.
TELLING_IMPORTS = f"""
import sys, types
sys.path[:] = {sys.path!r}
from node_agent.cli import main
code = main(sys.argv[1:])
print(*(name for name, module in sys.modules.items() if type(module) is types.ModuleType))
sys.exit(code)
"""
Frame = tuple[Module, "int | Name"]
Stack = tuple[Frame, ...]


@pytest.fixture(scope="session")
def telling_imports() -> list[str]:
    """The agent's command, to be followed by its arguments; at its end it prints the modules that
    it has imported, with spaces between them."""
    return [sys.executable, "-c", TELLING_IMPORTS]


@pytest.fixture
def centre_config(postgres_url: str, valkey_url: str) -> CentreConfig:
    """Configuration of an aggregator with a database of its own."""
    return CentreConfig(database_url=postgres_url, broker_url=valkey_url)


@pytest.fixture
def database(postgres_url: str) -> Iterator[Engine]:
    """A synchronous engine on the test's database."""
    engine = create_sync_database(postgres_url)
    yield engine
    engine.dispose()


@pytest.fixture
def rows(database: Engine) -> Callable[..., list[tuple[Any, ...]]]:
    """Runs a statement in its own transaction and returns its rows."""

    def run(statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        with database.begin() as connection:
            result = connection.execute(text(statement), parameters)
            return [tuple(row) for row in result] if result.returns_rows else []

    return run


@pytest.fixture
def app(centre_config: CentreConfig) -> web.Application:
    """The aggregator's application, not yet started."""
    return create_app(centre_config)


@pytest.fixture
def no_blocking() -> Iterator[None]:
    """A call in the aggregator that blocks the event loop fails there with BlockingError."""
    with blockbuster_ctx("aggregator") as blockbuster:
        # Short locks around in-memory caches are no blocking.
        blockbuster.functions["threading.Lock.acquire"].deactivate()
        for function in blockbuster.functions.values():
            # Made before the loop runs, except in tests that start a second one.
            function.can_block_in("aggregator/app.py", {"create_app"})
        yield


@pytest.fixture
async def client(app: web.Application, no_blocking: None) -> AsyncIterator[TestClient[Any, Any]]:
    """An HTTP client of a started aggregator on the loopback."""
    async with TestClient(TestServer(app)) as client:
        yield client


def frame_hash(frame: Frame) -> bytes:
    """The 16 bytes of one frame that enter its stack's hash."""
    module, place = frame
    return pack_frame(module_hash(module), name_hash(place) if isinstance(place, Name) else place)


def hash_of(stack: Stack) -> bytes:
    """The content hash of a stack."""
    return stack_hash(b"".join(frame_hash(frame) for frame in stack))


def native_stack(number: int, depth: int = 3) -> Stack:
    """A stack of native frames, different for every number."""
    module = Module(ModuleKind.NATIVE, b"\x01" * 20, "demo")
    return tuple((module, 4096 + 64 * (number * depth + level)) for level in range(depth))


@dataclass
class Node:
    """A node with its token. `run` and `sequence` go on by themselves."""

    name: str
    token: str
    client: TestClient[Any, Any]
    run: bytes = field(default_factory=lambda: uuid4().bytes)
    sequence: int = 0

    def batch(
        self, samples: Mapping[Stack, int], labels: Mapping[str, str] | None = None, **changes: Any
    ) -> Batch:
        """The next batch: `samples` counts by stack in one series, `changes` replace fields."""
        if "sequence" not in changes:
            self.sequence += 1
        hashes = b"".join(hash_of(stack) for stack in samples)
        columns: dict[str, Any] = {
            "node": self.name,
            "run": self.run,
            "sequence": self.sequence,
            "start_ns": time.time_ns() - INTERVAL_NS,
            "duration_ns": INTERVAL_NS,
            "rate_millihertz": 19_000,
            "collector": "cpu",
            "online_cpus": 4,
            "series": [Series(dict(labels or {"service": "demo"}))],
            "stack_hashes": hashes,
            "series_index": np.zeros(len(samples), "<u4").tobytes(),
            "counts": np.array(list(samples.values()), "<u4").tobytes(),
            "lost": {},
            "overhead": Overhead(10, 20, 30, 40, 30 << 20, 12 << 20, 0.25, 0.5),
            "agent_version": "0.1.0",
            "facts": {"kernel": "6.18.0"},
        }
        return Batch(**{**columns, **changes})

    def definitions(self, stacks: Sequence[Stack], **changes: Any) -> Definitions:
        """Definitions of `stacks`; `changes` replace fields."""
        modules: dict[Module, int] = {}
        names: dict[Name, int] = {}
        frames: dict[Frame, int] = {}
        for frame in (frame for stack in stacks for frame in stack):
            modules.setdefault(frame[0], len(modules))
            if isinstance(frame[1], Name):
                names.setdefault(frame[1], len(names))
            frames.setdefault(frame, len(frames))
        places = [names[place] if isinstance(place, Name) else place for _, place in frames]
        columns: dict[str, Any] = {
            "node": self.name,
            "run": self.run,
            "modules": list(modules),
            "names": list(names),
            "frame_module": np.array([modules[m] for m, _ in frames], "<u4").tobytes(),
            "frame_offset": np.array(places, "<u8").tobytes(),
            "stack_hashes": b"".join(hash_of(stack) for stack in stacks),
            "stack_lengths": np.array([len(stack) for stack in stacks], "<u2").tobytes(),
            "stack_frames": np.array(
                [frames[frame] for stack in stacks for frame in stack], "<u4"
            ).tobytes(),
        }
        return Definitions(**{**columns, **changes})

    async def post(self, path: str, body: Any, **headers: str) -> ClientResponse:
        """POST `body` (bytes, or a message to encode) with this node's token."""
        data = encode(body) if isinstance(body, msgspec.Struct) else body
        headers = {"Authorization": f"Bearer {self.token}", **headers}
        return await self.client.post(path, data=data, headers=headers)

    async def send(self, batch: Batch) -> Answer:
        """Send a batch that must be accepted."""
        async with await self.post("/api/v1/batches", batch) as response:
            assert response.status == 200, await response.text()
            return decode(await response.read(), Answer)

    async def post_batch(self, samples: Mapping[Stack, int]) -> int:
        """Send the next batch, which may be refused; returns the status."""
        async with await self.post("/api/v1/batches", self.batch(samples)) as response:
            return response.status

    async def define(self, stacks: Sequence[Stack], **changes: Any) -> None:
        """Send definitions that must be accepted."""
        body = self.definitions(stacks, **changes)
        async with await self.post("/api/v1/definitions", body) as response:
            assert response.status == 204, await response.text()


@pytest.fixture
def enrol(database: Engine) -> Callable[[str], str]:
    """Enrols a node by name and returns its token."""

    def enrol_node(name: str) -> str:
        with session_scope(database) as session:
            return create_token(session, name)

    return enrol_node


@pytest.fixture
def new_node(client: TestClient[Any, Any], enrol: Callable[[str], str]) -> Callable[[str], Node]:
    """Makes enrolled nodes by name."""
    return lambda name: Node(name, enrol(name), client)


@pytest.fixture
def node(new_node: Callable[[str], Node]) -> Node:
    """An enrolled node, web-1."""
    return new_node("web-1")


@pytest.fixture
def stack_of() -> Callable[..., Stack]:
    """`native_stack`: a stack of native frames, different for every number."""
    return native_stack


@pytest.fixture
def stack_hash_of() -> Callable[[Stack], bytes]:
    """The content hash of a stack."""
    return hash_of


@pytest.fixture
def error_of() -> Callable[[Awaitable[ClientResponse]], Awaitable[tuple[int, str]]]:
    """Status and code of a refused request, which must be JSON with message and remedy."""

    async def read(request: Awaitable[ClientResponse]) -> tuple[int, str]:
        async with await request as response:
            error = (await response.json())["error"]
            assert error["message"]
            assert "remedy" in error
            return response.status, error["code"]

    return read


@pytest.fixture
def deliver() -> Callable[[Shipper], Awaitable[None]]:
    """await deliver(shipper): beside the event loop, until its spool is empty."""

    async def until_empty(shipper: Shipper) -> None:
        for _ in range(100):
            if not shipper.spool.pending():
                return
            await asyncio.to_thread(shipper.step)
        raise AssertionError(f"still in the spool: {shipper.spool.pending()}")

    return until_empty


@pytest.fixture
def shipper_to(spool: Spool, node: Any, tmp_path: Path) -> Iterator[Callable[..., Shipper]]:
    """shipper_to(port, **settings): a shipper of the spool to a port of the loopback, with the
    node's token."""
    token_file = tmp_path / "token"
    token_file.write_text(node.token)
    token_file.chmod(0o600)
    clients = []

    def make(port: int, **settings: Any) -> Shipper:
        client = Client(f"http://127.0.0.1:{port}", token_file, None, 60.0)
        clients.append(client)
        return Shipper(spool, client, Report(spool, io.StringIO()), lambda: 0.0, **settings)

    yield make
    for client in clients:
        client.close()


class OwnPostgres:
    """A Postgres that may be stopped and killed."""

    def __init__(self, servers_dir: Path) -> None:
        folder = servers_dir / "restarted"
        self.postgres = create_postgres(folder, servers_dir / "rs", server_account())
        self.postgres.initialise()
        self.log = (servers_dir / "restarted.log").open("wb")
        self.url = self.postgres.url("postgres")
        self.start()

    def start(self) -> None:
        while not self.postgres.may_start():
            time.sleep(0.02)
        self.process = Process(self.postgres.command(), self.log)
        self.postgres.wait_ready(self.process, 300)

    def stop(self) -> None:
        assert self.process.stop(300)

    def kill(self) -> None:
        # All of it: a server that always finds its next order there does not look whether its
        # postmaster lives.
        pid = self.process.pid
        servers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for killed in (pid, *map(int, servers)):
            with suppress(ProcessLookupError):
                os.kill(killed, signal.SIGKILL)
        while self.process.poll() is None:
            time.sleep(0.02)


@pytest.fixture
def own_postgres(servers_dir: Path) -> Iterator[OwnPostgres]:
    """A server of this test alone: `start`, `stop`, `kill` and its URL."""
    server = OwnPostgres(servers_dir)
    yield server
    server.stop()
    server.log.close()
    shutil.rmtree(server.postgres.data_dir)
