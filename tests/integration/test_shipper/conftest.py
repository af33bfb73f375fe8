"""A peer that speaks the centre's side of the protocol, with faults on demand.

It keeps what the real aggregator keeps (a high water and digest for each run, undefined stacks),
so that a test can tell lost from doubled. The real aggregator is tested with the agent elsewhere.
"""

import contextlib
import io
import os
import random
import threading
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from node_agent.shipper.client import Client
from node_agent.shipper.report import Report
from node_agent.shipper.shipper import Shipper
from node_agent.spool import Spool
from wire.codec import CONTENT_TYPE, decode, encode, is_short
from wire.errors import WireError
from wire.hashes import module_hash, pack_frame, stack_hash
from wire.packed import PackedDefinitions
from wire.schema import (
    Answer,
    Batch,
    Definitions,
    Module,
    ModuleKind,
    Overhead,
    Series,
    SymbolDirective,
    SymbolExtract,
)
from wire.unpack import unpack
from wire.validate import check_batch, check_definitions

TOKEN = "token-of-web-1"
MODULES = [Module(ModuleKind.NATIVE, bytes([n]) * 20, f"lib{n}.so") for n in range(4)]
Fault = Callable[["Handler"], bool]  # True: the fault answered, nothing else is to be done


@dataclass
class Peer:
    """What the centre knows. `faults` are eaten one a request, in order; None is "no fault"."""

    token: str = TOKEN
    faults: deque[Fault | None] = field(default_factory=deque)
    directives: list[SymbolDirective] = field(default_factory=list)
    counts: Counter[bytes] = field(default_factory=Counter)
    high_water: dict[bytes, tuple[int, bytes]] = field(default_factory=dict)
    lost_batches: int = 0
    duplicates: int = 0
    definitions: dict[bytes, tuple[bytes, ...]] = field(default_factory=dict)
    never_defined: set[bytes] = field(default_factory=set)
    extracts: list[SymbolExtract] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    connections: int = 0
    packs: bool = False  # understands definitions of version 2
    url: str = ""
    server: Any = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def store(self, body: bytes) -> tuple[int, bytes]:
        batch = decode(body, Batch)
        rows = check_batch(batch)
        hashes = [batch.stack_hashes[16 * n : 16 * n + 16] for n in range(rows)]
        high, digest = self.high_water.get(batch.run, (0, b""))
        status = "stored"
        if batch.sequence == high and digest != stack_hash(body):
            return 409, b"another batch of this run and sequence"
        if batch.sequence <= high:
            status = "duplicate"
            self.duplicates += 1
        else:
            self.lost_batches += batch.sequence - high - 1
            self.high_water[batch.run] = (batch.sequence, stack_hash(body))
            counts = memoryview(batch.counts).cast("I")
            for row, one in enumerate(hashes):
                self.counts[one] += counts[row]
        want = b"".join(
            one for one in hashes if one not in self.definitions and one not in self.never_defined
        )
        directives, self.directives = self.directives, []
        return 200, encode(Answer(status, want, directives))

    def define(self, body: bytes) -> tuple[int, bytes]:
        packed = decode(body, PackedDefinitions) if self.packs and is_short(body) else None
        message = unpack(packed) if packed is not None else decode(body, Definitions)
        stacks = check_definitions(message)
        before = len(self.definitions)
        modules = memoryview(message.frame_module).cast("I")
        offsets = memoryview(message.frame_offset).cast("Q")
        indexes = memoryview(message.stack_frames).cast("I")
        lengths = memoryview(message.stack_lengths).cast("H")
        at = 0
        for stack in range(stacks):
            frames = tuple(
                pack_frame(module_hash(message.modules[modules[index]]), offsets[index])
                for index in indexes[at : at + lengths[stack]]
            )
            at += lengths[stack]
            claimed = message.stack_hashes[16 * stack : 16 * stack + 16]
            assert stack_hash(b"".join(frames)) == claimed
            self.definitions[claimed] = frames
        if packed is None or not packed.ahead:
            return 204, b""
        numbers = array("I", range(1, stacks + 1)).tobytes()
        defined = len(self.definitions) - before
        return 200, encode(Answer("stored", stack_numbers=numbers, defined=defined))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 300

    @property
    def peer(self) -> Peer:
        return self.server.peer  # type: ignore[attr-defined]  # set on the server

    def setup(self) -> None:
        super().setup()
        self.peer.connections += 1

    def log_message(self, *arguments: object) -> None:
        pass

    def do_POST(self) -> None:
        peer = self.peer
        with peer.lock:
            peer.requests.append(self.path)
            fault = peer.faults.popleft() if peer.faults else None
            if fault is not None and fault(self):
                return
            self.reply(*self.outcome())

    def outcome(self) -> tuple[int, bytes]:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != f"Bearer {self.peer.token}":
            return 401, b"unknown token"
        if self.headers["Content-Type"] != CONTENT_TYPE:
            return 415, b"not a Flamefleet message"
        try:
            if self.path == "/api/v1/batches":
                return self.peer.store(body)
            if self.path == "/api/v1/definitions":
                return self.peer.define(body)
            if self.path == "/api/v1/symbols":
                self.peer.extracts.append(decode(body, SymbolExtract))
                return 204, b""
        except WireError as error:
            return 400, str(error).encode()
        return 404, b"no such address"

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def cut(self) -> bool:
        """Close the connection without another word."""
        self.close_connection = True
        self.wfile.flush()
        with contextlib.suppress(OSError):
            self.connection.shutdown(2)
        return True


class faults:
    """Faults for `peer.faults`."""

    @staticmethod
    def status(status: int, body: bytes = b"because", **headers: str) -> Fault:
        def answer(handler: Handler) -> bool:
            handler.rfile.read(int(handler.headers["Content-Length"]))
            handler.reply(status, body, **headers)
            return True

        return answer

    @staticmethod
    def cut_before_reading(handler: Handler) -> bool:
        return handler.cut()

    @staticmethod
    def answer_without_reading(handler: Handler) -> bool:
        handler.reply(413, b"too large", Connection="close")
        return handler.cut()

    @staticmethod
    def cut_after_commit(handler: Handler) -> bool:
        handler.outcome()
        return handler.cut()

    @staticmethod
    def truncate(handler: Handler) -> bool:
        status, body = handler.outcome()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2])
        return handler.cut()

    @staticmethod
    def garbage(handler: Handler) -> bool:
        handler.outcome()
        handler.reply(200, b"<html>please log in</html>")
        return True

    @staticmethod
    def odd_want(handler: Handler) -> bool:
        handler.outcome()
        handler.reply(200, encode(Answer("stored", b"not 16 bytes")))
        return True

    @staticmethod
    def endless(handler: Handler) -> bool:
        handler.outcome()
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            while True:
                handler.wfile.write(bytes(1 << 16))
        handler.close_connection = True
        return True

    @staticmethod
    def silence(handler: Handler) -> bool:
        handler.outcome()
        with contextlib.suppress(OSError):
            handler.connection.recv(1)  # until the client gives up
        return handler.cut()

    @staticmethod
    def close_after_answer(handler: Handler) -> bool:
        """Say nothing of it: like a kept-alive connection that timed out."""
        handler.reply(*handler.outcome())
        return handler.cut()


@pytest.fixture
def fault() -> type[faults]:
    return faults


@pytest.fixture
def peer() -> Iterator[Peer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    url = f"http://127.0.0.1:{server.server_port}"
    server.peer = Peer(url=url, server=server)  # type: ignore[attr-defined]  # set on the server
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server.peer  # type: ignore[attr-defined]  # set on the server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def said() -> io.StringIO:
    """What the shipper says on stderr."""
    return io.StringIO()


@pytest.fixture
def shipper(spool: Spool, peer: Peer, token_file: Path, said: io.StringIO) -> Iterator[Shipper]:
    """Of the spool to the peer."""
    client = Client(peer.url, token_file, None, 2.0)
    yield Shipper(spool, client, Report(spool, said), lambda: 0.5)
    client.close()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    return path


@dataclass
class Sampler:
    """Puts batches of random known stacks into a spool, as the real one does: definitions of the
    stacks that are new in a run travel with the batch that first holds them."""

    spool: Spool
    run: bytes = field(default_factory=lambda: os.urandom(16))
    sequence: int = 0
    counts: Counter[bytes] = field(default_factory=Counter)
    stacks: dict[bytes, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    known: set[bytes] = field(default_factory=set)
    seed: random.Random = field(default_factory=lambda: random.Random(7))

    def put(self, rows: int = 5, *, define: bool = True) -> Batch:
        self.sequence += 1
        hashes, counts = [], []
        for _ in range(rows):
            frames = tuple(
                (self.seed.randrange(4), self.seed.randrange(6) * 16)
                for _ in range(self.seed.randrange(1, 5))
            )
            packed = b"".join(pack_frame(module_hash(MODULES[m]), offset) for m, offset in frames)
            one = stack_hash(packed)
            self.stacks[one] = frames
            hashes.append(one)
            counts.append(self.seed.randrange(1, 50))
        for one, count in zip(hashes, counts, strict=True):
            self.counts[one] += count
        batch = Batch(
            node="web-1",
            run=self.run,
            sequence=self.sequence,
            start_ns=time.time_ns(),
            duration_ns=10**10,
            rate_millihertz=19_000,
            collector="cpu",
            online_cpus=2,
            series=[Series({"service": "nginx"})],
            stack_hashes=b"".join(hashes),
            series_index=bytes(4 * rows),
            counts=b"".join(count.to_bytes(4, "little") for count in counts),
            lost={},
            overhead=Overhead(0, 0, 0, 0, 0, 0, 0.0, 0.0),
            agent_version="0.1.0",
        )
        new = [one for one in dict.fromkeys(hashes) if one not in self.known]
        self.known.update(new)
        self.spool.put_batch(batch, self.define(new) if define and new else None)
        return batch

    def define(self, hashes: list[bytes]) -> Definitions:
        frames = list(dict.fromkeys(frame for one in hashes for frame in self.stacks[one]))
        index = {frame: number for number, frame in enumerate(frames)}
        return Definitions(
            node="web-1",
            run=self.run,
            modules=MODULES,
            names=[],
            frame_module=b"".join(m.to_bytes(4, "little") for m, _ in frames),
            frame_offset=b"".join(offset.to_bytes(8, "little") for _, offset in frames),
            stack_hashes=b"".join(hashes),
            stack_lengths=b"".join(len(self.stacks[one]).to_bytes(2, "little") for one in hashes),
            stack_frames=b"".join(
                index[frame].to_bytes(4, "little") for one in hashes for frame in self.stacks[one]
            ),
        )


@pytest.fixture
def sampler(spool: Spool) -> Sampler:
    return Sampler(spool)
