"""Nodes of the bench: what they send, as a shipper would, over one connection each."""

import random
import struct
import time
from array import array
from dataclasses import dataclass, field
from functools import lru_cache
from uuid import uuid4

import aiohttp

from wire.codec import decode, encode
from wire.hashes import module_hash, pack_frame, stack_hash
from wire.schema import Answer, Batch, Definitions, Module, ModuleKind, Overhead, Series

INTERVAL_NS = 10 * 10**9
MODULE = Module(ModuleKind.NATIVE, b"\x01" * 20, "hostile")
DEPTH = 24
SERVICES = 8
_MODULE_HASH = module_hash(MODULE)


@dataclass
class Node:
    """A node with its token. `stacks` are the numbers of its stacks so far."""

    name: str
    token: str
    url: str
    overhead_percent: float = 0.25
    run: bytes = field(default_factory=lambda: uuid4().bytes)
    sequence: int = 0

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def batch(self, stacks: list[int], start_ns: int | None = None) -> Batch:
        """The next batch, with one row a stack."""
        self.sequence += 1
        rows = len(stacks)
        return Batch(
            node=self.name,
            run=self.run,
            sequence=self.sequence,
            start_ns=start_ns or time.time_ns() - INTERVAL_NS,
            duration_ns=INTERVAL_NS,
            rate_millihertz=99_000,
            collector="cpu",
            online_cpus=512,
            series=[
                Series({"service": f"service-{n}", "node": self.name}) for n in range(SERVICES)
            ],
            stack_hashes=b"".join(hash_of(stack) for stack in stacks),
            series_index=array("I", (n % SERVICES for n in range(rows))).tobytes(),
            counts=array("I", [1] * rows).tobytes(),
            lost={},
            overhead=Overhead(
                10, 20, 30, 40, 30 << 20, 12 << 20, self.overhead_percent, self.overhead_percent
            ),
            agent_version="0.1.0",
            facts={"kernel": "bench", "mode": "core"},
        )

    def definitions(self, stacks: list[int]) -> Definitions:
        """The frames of these stacks."""
        places = [place for stack in stacks for place in frames_of(stack)]
        distinct = sorted(set(places))
        index = {place: number for number, place in enumerate(distinct)}
        return Definitions(
            node=self.name,
            run=self.run,
            modules=[MODULE],
            names=[],
            frame_module=array("I", [0] * len(distinct)).tobytes(),
            frame_offset=array("Q", distinct).tobytes(),
            stack_hashes=b"".join(hash_of(stack) for stack in stacks),
            stack_lengths=array("H", [DEPTH] * len(stacks)).tobytes(),
            stack_frames=array("I", (index[place] for place in places)).tobytes(),
        )

    async def send(
        self, session: aiohttp.ClientSession, stacks: list[int], start_ns: int | None = None
    ) -> int:
        """Send a batch and what its answer wants; the batch's status."""
        body = encode(self.batch(stacks, start_ns))
        url = f"{self.url}/api/v1/batches"
        async with session.post(url, data=body, headers=self.headers) as response:
            content = await response.read()
            if response.status != 200:
                return response.status
        wanted = set(_split(decode(content, Answer).want))
        missing = [stack for stack in stacks if hash_of(stack) in wanted]
        if missing:
            body = encode(self.definitions(missing))
            url = f"{self.url}/api/v1/definitions"
            async with session.post(url, data=body, headers=self.headers) as response:
                await response.read()
        return 200


def frames_of(stack: int) -> list[int]:
    """The offsets of a stack's frames, root first; neighbours share most."""
    return [
        64 * (stack // (3 ** (DEPTH - level)) % 50_000 + level) for level in range(DEPTH - 1)
    ] + [64 * (100_000 + stack)]


@lru_cache(maxsize=50_000)
def hash_of(stack: int) -> bytes:
    """The content hash of a stack."""
    return stack_hash(b"".join(pack_frame(_MODULE_HASH, place) for place in frames_of(stack)))


def some_stacks(chance: random.Random, count: int, known: int) -> list[int]:
    """Numbers of distinct stacks below `known`."""
    return chance.sample(range(known), count)


def random_hashes(count: int) -> bytes:
    """Hashes that no other batch has."""
    return random.randbytes(16 * count)


def pack_length(length: int) -> bytes:
    """A big-endian u32, as msgpack has lengths."""
    return struct.pack(">I", length)


def _split(hashes: bytes) -> list[bytes]:
    return [hashes[at : at + 16] for at in range(0, len(hashes), 16)]
