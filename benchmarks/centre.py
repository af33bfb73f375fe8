"""A stand-in for the aggregator on the loopback: it decodes what comes, remembers stacks by their
hash, asks for those that it does not know, and counts every byte.

The real one would run its Postgres, Celery and HTTP on the same CPUs and be sampled with them; a
fleet's hosts have it elsewhere. It asks for no symbols: a fleet is asked once for each build id.
"""

import json
import time
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from wire.codec import CONTENT_TYPE, decode, encode
from wire.schema import Answer, Batch, Definitions

_HASH_BYTES = 16


@dataclass
class Received:
    """What one agent sent since the start; bytes with the HTTP headers, without TCP's."""

    batches: int = 0
    batch_bytes: int = 0
    definitions: int = 0
    definition_bytes: int = 0
    batch_head_bytes: int = 0
    definition_head_bytes: int = 0
    answer_bytes: int = 0  # what it was answered, heads included
    rows: int = 0
    samples: int = 0
    stacks: int = 0  # defined so far
    duration_ns: int = 0
    sampler_cpu_ns: int = 0  # as the agent says, and so on; children that ended included
    shipper_cpu_ns: int = 0
    kernel_cpu_ns: int = 0
    interrupt_cpu_ns: int = 0
    memory_bytes: int = 0  # of the last batch
    map_bytes: int = 0
    rate_hz: float = 0.0  # of the last batch
    lost: dict[str, int] = field(default_factory=dict)


class Centre(ThreadingHTTPServer):
    """Answers one agent; `GET /received` gives the counts as JSON."""

    daemon_threads = True  # one for the agent's connection, which stays open

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received = Received()
        self.defined: set[bytes] = set()

    def take_batch(self, batch: Batch) -> Answer:
        """Count a batch; the answer wants the stacks that are not defined yet."""
        received, overhead = self.received, batch.overhead
        hashes = batch.stack_hashes
        rows = {hashes[at : at + _HASH_BYTES] for at in range(0, len(hashes), _HASH_BYTES)}
        received.batches += 1
        received.rows += len(hashes) // _HASH_BYTES
        received.samples += sum(memoryview(batch.counts).cast("I"))
        received.duration_ns += batch.duration_ns
        received.sampler_cpu_ns += overhead.sampler_cpu_ns
        received.shipper_cpu_ns += overhead.shipper_cpu_ns
        received.kernel_cpu_ns += overhead.kernel_cpu_ns
        received.interrupt_cpu_ns += overhead.interrupt_cpu_ns
        received.memory_bytes, received.map_bytes = overhead.memory_bytes, overhead.map_bytes
        received.rate_hz = batch.rate_millihertz / 1000
        for reason, count in batch.lost.items():
            received.lost[reason] = received.lost.get(reason, 0) + count
        return Answer("stored", b"".join(sorted(rows - self.defined)))

    def take_definitions(self, definitions: Definitions) -> None:
        """Remember which stacks are defined now."""
        hashes = definitions.stack_hashes
        self.received.definitions += 1
        self.defined |= {hashes[at : at + _HASH_BYTES] for at in range(0, len(hashes), _HASH_BYTES)}
        self.received.stacks = len(self.defined)


class _Handler(BaseHTTPRequestHandler):
    server: Centre
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        received = self.server.received
        # As text its lines, and the empty one behind them, end in one byte instead of two.
        lines = 2 + len(self.headers)
        head_bytes = len(f"{self.requestline}\n{self.headers}") + lines
        if self.path.endswith("/batches"):
            received.batch_bytes += len(body)
            received.batch_head_bytes += head_bytes
            self._answer(200, encode(self.server.take_batch(decode(body, Batch))))
        else:
            received.definition_bytes += len(body)
            received.definition_head_bytes += head_bytes
            self.server.take_definitions(decode(body, Definitions))
            self._answer(204, b"")

    def do_GET(self) -> None:
        known = self.path == "/received"
        body = json.dumps(asdict(self.server.received)).encode() if known else b"ready"
        self._answer(200, body)

    def _answer(self, status: int, body: bytes) -> None:
        head = [f"HTTP/1.1 {status} OK", f"Content-Length: {len(body)}"]
        head += [f"Content-Type: {CONTENT_TYPE}", "Server: aiohttp", f"Date: {time.ctime()}"]
        data = "\r\n".join([*head, "", ""]).encode() + body
        if self.command == "POST":
            self.server.received.answer_bytes += len(data)
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


if __name__ == "__main__":
    centre = Centre()
    print(centre.server_address[1], flush=True)
    centre.serve_forever()
