"""The attacks, each in a process of its own, bounded in time and count; to the loopback only."""

import asyncio
import contextlib
import itertools
import random
import resource
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import aiohttp
import zstandard

from benchmarks.hostile_nodes import Node, hash_of, pack_length, random_hashes
from wire import limits
from wire.codec import encode
from wire.words import WORDS

CONNECTIONS = 6_000
READERS = 60
ASKED = (
    "/api/v1/flamegraph?from=now-2h",
    "/api/v1/timeline?from=now-2h&query=%7Bservice%3D%22service-1%22%7D",
    "/api/v1/flamegraph?from=now-2h&format=pprof",
)


@dataclass(frozen=True)
class Target:
    """Where an attack goes, with what it was told."""

    port: int
    tokens: dict[str, str]
    seconds: float

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def node(self, name: str) -> Node:
        return Node(name, self.tokens[name], self.url)


Attack = Callable[[Target], Awaitable[dict[str, int]]]


async def nothing(target: Target) -> dict[str, int]:
    """The same minute without an attack."""
    await asyncio.sleep(target.seconds)
    return {}


async def bombs(target: Target) -> dict[str, int]:
    """Small messages that would become large, and the largest that are legal, of every kind."""
    node = target.node("greedy")
    items = itertools.cycle(_bombs(node))
    counts: dict[str, int] = {}
    ends = time.monotonic() + target.seconds

    async def send(session: aiohttp.ClientSession) -> None:
        while time.monotonic() < ends:
            path, make = next(items)
            url = f"{target.url}/api/v1/{path}"
            with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError):
                async with session.post(url, data=make(), headers=node.headers) as response:
                    await response.read()
                    key = f"{path} {response.status}"
                    counts[key] = counts.get(key, 0) + 1

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(120)) as session:
        await asyncio.gather(*(send(session) for _ in range(4)))
    return counts


def _bombs(node: Node) -> list[tuple[str, Callable[[], bytes]]]:
    decoded = limits.MAX_BATCH_DECODED_BYTES - 64
    wide = limits.MAX_DEFINITIONS_DECODED_BYTES - 64
    maps = b"\xdd" + pack_length(decoded) + b"\x80" * decoded
    dicts = b"\x81\xa5facts\xdf" + pack_length(decoded // 2) + b"\xa0\xa0" * (decoded // 2)
    names = b"\xdd" + pack_length(wide // 2) + b"\x91\xa0" * (wide // 2)
    ready: list[tuple[str, bytes]] = [
        ("batches", _message(2, b"B", maps)),
        ("batches", _message(1, b"B", b"\x81\xa6series" + maps)),
        ("batches", _message(1, b"B", dicts)),
        ("definitions", _message(2, b"D", names)),
        ("definitions", _message(1, b"D", b"\x81\xa5names" + names)),
        ("symbols", _message(1, b"S", b"\x81\xa4node" + maps)),
    ]
    rows = limits.MAX_BATCH_ROWS

    def one_stack() -> bytes:
        """As many rows as there may be, all of one stack: some KB."""
        batch = node.batch([1])
        return encode(replace_rows(batch, hash_of(1) * rows, bytes(4 * rows), b"\x01\0\0\0" * rows))

    return [(path, lambda body=body: body) for path, body in ready] + [("batches", one_stack)]


def replace_rows(batch: Any, hashes: bytes, series: bytes, counts: bytes) -> Any:
    """`batch` with these rows."""
    fields = {name: getattr(batch, name) for name in batch.__struct_fields__}
    return type(batch)(
        **{**fields, "stack_hashes": hashes, "series_index": series, "counts": counts}
    )


def _message(version: int, letter: bytes, body: bytes) -> bytes:
    words = zstandard.ZstdCompressionDict(WORDS, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    compressor = zstandard.ZstdCompressor(dict_data=words if version == 2 else None)
    return b"FF" + bytes((version,)) + letter + compressor.compress(body)


async def half_open(target: Target) -> dict[str, int]:
    """CONNECTIONS that send a byte of a head now and then, opened anew when they are closed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = min(CONNECTIONS, hard - 200)
    ends = time.monotonic() + target.seconds
    counts = {"opened": 0, "closed by the aggregator": 0, "at once": 0}
    is_open = 0

    async def trickle() -> None:
        nonlocal is_open
        while time.monotonic() < ends:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
            except OSError:
                await asyncio.sleep(0.5)
                continue
            counts["opened"] += 1
            is_open += 1
            counts["at once"] = max(counts["at once"], is_open)
            try:
                for byte in itertools.cycle(b"GET /healthz HTTP/1.1\r\nX: aaaaaaaaaaaaaaa"):
                    writer.write(bytes((byte,)))
                    await asyncio.wait_for(reader.read(1), min(3.0, ends - time.monotonic()))
                    counts["closed by the aggregator"] += 1
                    break
            except (asyncio.TimeoutError, ValueError):
                pass
            except ConnectionError:
                counts["closed by the aggregator"] += 1
            is_open -= 1
            writer.transport.abort()
            await asyncio.sleep(0.2)

    await asyncio.gather(*(trickle() for _ in range(most)))
    return counts


async def greedy(target: Target) -> dict[str, int]:
    """One token that sends batches of new stacks, four at once, as fast as they are taken."""
    node = target.node("greedy")
    counts: dict[str, int] = {}
    ends = time.monotonic() + target.seconds
    rows = 20_000

    async def send(session: aiohttp.ClientSession) -> None:
        while time.monotonic() < ends:
            batch = node.batch([1])
            body = encode(
                replace_rows(batch, random_hashes(rows), bytes(4 * rows), b"\x01\0\0\0" * rows)
            )
            url = f"{target.url}/api/v1/batches"
            with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError):
                async with session.post(url, data=body, headers=node.headers) as response:
                    await response.read()
                    key = str(response.status)
                    counts[key] = counts.get(key, 0) + 1

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(120)) as session:
        await asyncio.gather(*(send(session) for _ in range(4)))
    return counts


async def readers(target: Target) -> dict[str, int]:
    """READERS that ask and hang up, over and over; at the end one that stays."""
    counts = {"asked": 0, "answered": 0}
    ends = time.monotonic() + target.seconds

    async def ask(number: int) -> None:
        chance = random.Random(number)
        while time.monotonic() < ends:
            _, writer = await asyncio.open_connection("127.0.0.1", target.port)
            head = f"GET {chance.choice(ASKED)} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            writer.write(head.encode())
            counts["asked"] += 1
            await asyncio.sleep(chance.uniform(0.1, 1.5))
            writer.transport.abort()

    await asyncio.gather(*(ask(number) for number in range(READERS)))
    began = time.monotonic()
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(300)) as session,
        session.get(f"{target.url}{ASKED[0]}") as response,
    ):
        await response.read()
        counts["next question's status"] = response.status
    counts["next question, ms"] = round(1000 * (time.monotonic() - began))
    return counts


async def hanging_receiver(target: Target) -> dict[str, int]:
    """Nodes over their budget, so that alerts go to a receiver that never answers (the bench has
    it) and to one that does."""
    nodes = [replace(target.node(f"loud-{n}"), overhead_percent=5.0) for n in range(12)]
    ends = time.monotonic() + target.seconds
    sent = 0
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(120)) as session:
        while time.monotonic() < ends:
            for node in nodes:
                sent += await node.send(session, [1, 2, 3]) == 200
            await asyncio.sleep(2.0)
    return {"batches of nodes over their budget": sent}


ATTACKS: dict[str, Attack] = {
    "bombs": bombs,
    "half-open connections": half_open,
    "one greedy node": greedy,
    "readers that hang up": readers,
    "a hanging receiver": hanging_receiver,
}


def start(attack: Attack, target: Target) -> Any:
    """A process that runs the attack; `result()` waits for its counts."""
    context = get_context("spawn")
    queue: Any = context.Queue()
    process = context.Process(target=_run, args=(attack, target, queue), daemon=True)
    process.start()
    return _Running(process, queue)


@dataclass(frozen=True)
class _Running:
    process: Any
    queue: Any

    def result(self, limit_s: float) -> dict[str, int]:
        counts: dict[str, int] = self.queue.get(timeout=limit_s)
        self.process.join()
        return counts


def _run(attack: Attack, target: Target, queue: Any) -> None:
    queue.put(asyncio.run(attack(target)))  # type: ignore[arg-type]  # each is a coroutine function
