"""A stand-in for the aggregator on the loopback: it decodes what comes, remembers stacks by their
hash, asks for those that it does not know, and counts every byte.

The real one would run its Postgres, Celery and HTTP on the same CPUs and be sampled with them; a
fleet's hosts have it elsewhere. It asks for no symbols: a fleet is asked once for each build id.
"""

import json
import time
from array import array
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import accumulate
from typing import Any

from wire.codec import CONTENT_TYPE, DEFINITIONS_VERSION, SHORT_TYPE, decode, encode, is_short
from wire.hashes import batch_check, labels_hash
from wire.packed import PackedDefinitions
from wire.schema import Answer, Batch, Definitions
from wire.short import ShortBatch, from_planes
from wire.unpack import unpack

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


class Numbered:
    """Keys that have got numbers, counted from 1."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self._numbers: dict[bytes, int] = {}

    def column(self, keys: list[bytes]) -> bytes:
        """The numbers of `keys`, u32 each; new ones get the next."""
        for key in keys:
            if key not in self._numbers:
                self.keys.append(key)
                self._numbers[key] = len(self.keys)
        return array("I", (self._numbers[key] for key in keys)).tobytes()


class Centre(ThreadingHTTPServer):
    """Answers one agent; `GET /received` gives the counts as JSON."""

    daemon_threads = True  # one for the agent's connection, which stays open

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received = Received()
        self.defined: set[bytes] = set()
        self.stacks = Numbered()
        self.labels = Numbered()

    def take_batch(self, batch: Batch, *, wants_numbers: bool) -> Answer:
        """Count a whole batch."""
        hashes = _split(batch.stack_hashes)
        answer = self._take(batch, hashes, sum(memoryview(batch.counts).cast("I")))
        if not wants_numbers:
            return answer
        used = sorted(set(memoryview(batch.series_index).cast("I")))
        labels = [labels_hash(batch.series[row].labels) for row in used]
        return self._with_numbers(answer, set(hashes), labels)

    def take_short(self, short: ShortBatch) -> Answer | None:
        """Count a short batch; None when its numbers are not those of here."""
        steps = from_planes("numbers", short.numbers)
        numbered = [self.stacks.keys[(n - 1) % 2**32] for n in accumulate(steps)]
        labels = [
            labels_hash(one) if isinstance(one, dict) else self.labels.keys[one - 1]
            for one in short.series
        ]
        if batch_check(short.digest, labels, numbered) != short.check:
            return None
        hashed = _split(short.hashes)
        counts = (short.numbered_counts, short.hashed_counts)
        samples = sum(sum(from_planes("counts", column)) for column in counts)
        answer = self._take(short, numbered + hashed, samples)
        new = [labels_hash(one) for one in short.series if isinstance(one, dict)]
        return self._with_numbers(answer, set(hashed), new)

    def _with_numbers(self, answer: Answer, hashes: set[bytes], labels: list[bytes]) -> Answer:
        return Answer(
            answer.status,
            answer.want,
            [],
            self.stacks.column(sorted(hashes)),
            self.labels.column(labels),
            DEFINITIONS_VERSION,
        )

    def _take(self, batch: Batch | ShortBatch, hashes: list[bytes], samples: int) -> Answer:
        """Count a batch; the answer wants the stacks that are not defined yet."""
        received, overhead = self.received, batch.overhead
        received.batches += 1
        received.rows += len(hashes)
        received.samples += samples
        received.duration_ns += batch.duration_ns
        received.sampler_cpu_ns += overhead.sampler_cpu_ns
        received.shipper_cpu_ns += overhead.shipper_cpu_ns
        received.kernel_cpu_ns += overhead.kernel_cpu_ns
        received.interrupt_cpu_ns += overhead.interrupt_cpu_ns
        received.memory_bytes, received.map_bytes = overhead.memory_bytes, overhead.map_bytes
        received.rate_hz = batch.rate_millihertz / 1000
        for reason, count in batch.lost.items():
            received.lost[reason] = received.lost.get(reason, 0) + count
        return Answer("stored", b"".join(sorted(set(hashes) - self.defined)))

    def take_definitions(self, definitions: Definitions) -> Answer:
        """Remember which stacks are defined now."""
        self.received.definitions += 1
        hashes = sorted(set(_split(definitions.stack_hashes)))
        self.defined.update(hashes)
        before, self.received.stacks = self.received.stacks, len(self.defined)
        numbers = self.stacks.column(hashes)
        return Answer("stored", stack_numbers=numbers, defined=len(self.defined) - before)


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
            self._answer_batch(body)
        else:
            received.definition_bytes += len(body)
            received.definition_head_bytes += head_bytes
            self._answer_definitions(body)

    def _answer_definitions(self, body: bytes) -> None:
        packed = decode(body, PackedDefinitions) if is_short(body) else None
        definitions = unpack(packed) if packed is not None else decode(body, Definitions)
        answer = self.server.take_definitions(definitions)
        if packed is not None and packed.ahead:
            self._answer(200, encode(answer))
        else:
            self._answer(204, b"")

    def _answer_batch(self, body: bytes) -> None:
        if is_short(body):
            answer = self.server.take_short(decode(body, ShortBatch))
        else:
            wants_numbers = self.headers["Accept"] == SHORT_TYPE
            answer = self.server.take_batch(decode(body, Batch), wants_numbers=wants_numbers)
        if answer is None:
            self._answer(422, b"these numbers stand for something else here")
        else:
            self._answer(200, encode(answer))

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


def _split(hashes: bytes) -> list[bytes]:
    return [hashes[at : at + _HASH_BYTES] for at in range(0, len(hashes), _HASH_BYTES)]


if __name__ == "__main__":
    centre = Centre()
    print(centre.server_address[1], flush=True)
    centre.serve_forever()
