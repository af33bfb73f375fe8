"""What the worst requests of each kind do to an aggregator, each beside the same minute without.

Writes build/bench/hostile.json and prints a table. The centre is real (Postgres, Valkey,
aggregator, worker) and new for each attack. Meanwhile an honest node sends four batches a second,
of 300 stacks of which some are new, and /healthz is asked ten times a second: what they wait is
what a fleet would. The attackers run in processes of their own on the same CPUs.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import aiohttp

from benchmarks import hostile_attacks
from benchmarks.hostile_attacks import ATTACKS, Attack, Target
from benchmarks.hostile_nodes import INTERVAL_NS, Node, some_stacks
from benchmarks.hostile_report import report
from benchmarks.hostile_stack import Stack, running_stack
from wire.codec import encode

HONEST = "honest"
NODES = (HONEST, "greedy", *(f"loud-{n}" for n in range(12)), *(f"host-{n}" for n in range(10)))
KNOWN_STACKS = 5_000
ROWS = 300
BATCH_EVERY_S = 0.25
HEALTH_EVERY_S = 0.1
SETTLE_S = 3.0


@dataclass
class Minute:
    """What was seen meanwhile. Milliseconds; memory in MiB, its peak."""

    attack: str
    is_attacked: bool
    seconds: float
    batches: int = 0
    batch_median_ms: float = 0.0
    batch_most_ms: float = 0.0
    batches_refused: dict[str, int] = field(default_factory=dict)
    health_answers: int = 0
    health_failed: int = 0
    health_median_ms: float = 0.0
    health_most_ms: float = 0.0
    loop_delay_most_ms: float = 0.0
    memory_peak_mib: float = 0.0
    log_bytes: int = 0
    delivery_median_s: float | None = None
    counts: dict[str, int] = field(default_factory=dict)


async def send_honest(node: Node, minute: Minute, ends: float) -> None:
    """Batches as of a fleet's node, one connection, and how long each waits."""
    chance, took, new = random.Random(1), [], KNOWN_STACKS
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session:
        while (began := time.monotonic()) < ends:
            stacks = [*some_stacks(chance, ROWS - 3, KNOWN_STACKS), new, new + 1, new + 2]
            new += 3
            body = encode(node.batch(stacks))
            began = time.monotonic()
            try:
                async with session.post(
                    f"{node.url}/api/v1/batches", data=body, headers=node.headers
                ) as response:
                    await response.read()
                    status = str(response.status)
            except (aiohttp.ClientError, asyncio.TimeoutError) as error:
                status = type(error).__name__
            took.append(1000 * (time.monotonic() - began))
            if status != "200":
                minute.batches_refused[status] = minute.batches_refused.get(status, 0) + 1
            await asyncio.sleep(max(0.0, BATCH_EVERY_S - (time.monotonic() - began)))
    minute.batches = len(took)
    minute.batch_median_ms, minute.batch_most_ms = statistics.median(took), max(took)


async def ask_health(stack: Stack, minute: Minute, ends: float) -> None:
    """/healthz, each time over a connection of its own, as a load balancer asks."""
    took = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session:
        while (began := time.monotonic()) < ends:
            try:
                async with session.get(
                    f"{stack.url}/healthz", headers={"Connection": "close"}
                ) as response:
                    minute.health_failed += response.status != 200
            except (aiohttp.ClientError, asyncio.TimeoutError):
                minute.health_failed += 1
            took.append(1000 * (time.monotonic() - began))
            await asyncio.sleep(HEALTH_EVERY_S)
    minute.health_answers = len(took)
    minute.health_median_ms, minute.health_most_ms = statistics.median(took), max(took)


async def watch_loop(stack: Stack, minute: Minute, ends: float) -> None:
    """The aggregator's own account of how late its event loop was."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session:
        while time.monotonic() < ends:
            try:
                async with session.get(f"{stack.url}/metrics") as response:
                    for line in (await response.text()).splitlines():
                        if line.startswith("flamefleet_loop_delay_most_seconds "):
                            delay_ms = 1000 * float(line.split()[1])
                            minute.loop_delay_most_ms = max(minute.loop_delay_most_ms, delay_ms)
            except (aiohttp.ClientError, asyncio.TimeoutError):
                pass
            await asyncio.sleep(1.0)


async def measure(stack: Stack, name: str, attack: Attack, seconds: float) -> Minute:
    """One minute under `attack`."""
    minute = Minute(name, attack is not hostile_attacks.nothing, seconds)
    target = Target(stack.port, stack.tokens, seconds)
    node = Node(HONEST, stack.tokens[HONEST], stack.url)
    log_before = stack.log.stat().st_size
    running = hostile_attacks.start(attack, target)
    await asyncio.sleep(SETTLE_S if minute.is_attacked else 0.5)  # the process has begun
    stack.forget_peak()
    ends = time.monotonic() + seconds - SETTLE_S
    await asyncio.gather(
        send_honest(node, minute, ends),
        ask_health(stack, minute, ends),
        watch_loop(stack, minute, ends),
    )
    minute.counts = await asyncio.to_thread(running.result, seconds + 400)
    minute.memory_peak_mib = stack.memory_mib("VmHWM")
    minute.log_bytes = stack.log.stat().st_size - log_before
    return minute


async def seed(stack: Stack) -> None:
    """Profiles of the last hour, which readers ask for."""
    chance = random.Random(2)
    async with aiohttp.ClientSession() as session:
        for number in range(10):
            node = Node(f"host-{number}", stack.tokens[f"host-{number}"], stack.url)
            for step in range(30):
                start_ns = time.time_ns() - (30 - step) * 12 * INTERVAL_NS
                stacks = some_stacks(chance, 500, KNOWN_STACKS)
                await node.send(session, stacks, start_ns)


@dataclass
class Receivers:
    """Two webhooks: one that never answers, one that does and notes when."""

    urls: tuple[str, str]
    hung: int = 0
    delivered_s: list[float] = field(default_factory=list)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receivers]:
    """The receivers, on the loopback."""
    receivers = Receivers(("", ""))

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        receivers.hung += 1
        await asyncio.sleep(3600)

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1 << 16)
        receivers.delivered_s.append(time.monotonic())
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        writer.close()

    hanging = await asyncio.start_server(hang, "127.0.0.1", 0)
    taking = await asyncio.start_server(take, "127.0.0.1", 0)
    ports = (server.sockets[0].getsockname()[1] for server in (hanging, taking))
    receivers.urls = tuple(f"http://127.0.0.1:{port}/" for port in ports)  # type: ignore[assignment]  # two of them
    yield receivers
    hanging.close()
    taking.close()


async def run(name: str, seconds: float) -> list[Minute]:
    """The minute without the attack and the one under it, on a centre of their own."""
    async with receiving() as receivers:
        webhooks = receivers.urls if name == "a hanging receiver" else ()
        with running_stack(NODES, webhooks) as stack:
            say(f"{name}: profiles of an hour")
            await seed(stack)
            say(f"{name}: {seconds:.0f} s without it")
            without = await measure(stack, name, hostile_attacks.nothing, seconds)
            say(f"{name}: {seconds:.0f} s of it")
            began = time.monotonic()
            attacked = await measure(stack, name, ATTACKS[name], seconds)
        if webhooks:
            waits = [at - began for at in receivers.delivered_s]
            attacked.counts["requests that the hanging receiver got"] = receivers.hung
            attacked.counts["alerts that the other got"] = len(waits)
            attacked.delivery_median_s = statistics.median(waits) if waits else None
    return [without, attacked]


def say(words: str) -> None:
    """What is done now, on stderr."""
    print(f"{words}…", file=sys.stderr, flush=True)


def main() -> None:
    """Run what was chosen, write JSON, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each minute")
    parser.add_argument("--attacks", nargs="*", default=list(ATTACKS), choices=list(ATTACKS))
    parser.add_argument("--output", type=Path, default=Path("build/bench/hostile.json"))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what it started ends too
    minutes = [m for name in options.attacks for m in asyncio.run(run(name, options.seconds))]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    machine = {"cpus": os.cpu_count(), "kernel": os.uname().release, "load": os.getloadavg()}
    document = {"machine": machine, "minutes": [asdict(minute) for minute in minutes]}
    options.output.write_text(json.dumps(document, indent=2) + "\n")
    table = report(document["minutes"])  # type: ignore[arg-type]  # dicts of Minute
    options.output.with_suffix(".txt").write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main()
