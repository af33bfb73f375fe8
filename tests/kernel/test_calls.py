"""What the kernel program wakes the sampler for: what cannot wait, and nothing else."""

import select
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pytest

from node_agent.collectors.cpu import CpuCollector
from node_agent.collectors.stacks import ProcessKey, RawStack, StackEnd
from node_agent.processes.address_space import AddressSpace
from node_agent.symbols.modules import ModuleRegistry, Source
from node_agent.unwind.builder import Built
from node_agent.unwind.unwinder import Unwinder

SOURCE = Path(__file__).parent / "unwinding/chain.c"
LIMIT_S = 600.0  # other work may leave the program little time


class NoRows:
    """A source that never has the rows that it is asked for, as while a child waits its turn."""

    has_answers = False

    def request(self, build_id: bytes, source: Source | int) -> bool:
        return True

    def prefer(self, weights: dict[bytes, int]) -> None: ...

    def step(self) -> list[Built]:
        return []

    def close(self) -> None: ...


@pytest.fixture
def program(
    tmp_path: Path, await_program: Callable[[subprocess.Popen[bytes]], None]
) -> Iterator[int]:
    """The id of a process that spins."""
    path = tmp_path / f"called-{uuid4().hex[:5]}"
    command = ["gcc", "-O2", "-fomit-frame-pointer", "-static"]
    subprocess.run([*command, "-o", path, SOURCE], check=True)
    process = subprocess.Popen([path])
    await_program(process)
    yield process.pid
    process.kill()
    process.wait()


@pytest.fixture
def collector(program: int) -> Iterator[CpuCollector]:
    """One that samples nothing else."""
    collector = CpuCollector(199, 100_000, 10, only_tgid=program)
    collector.start()
    yield collector
    collector.stop()


class Round(NamedTuple):
    stacks: list[RawStack]
    has_called: bool


@pytest.fixture
def next_round(collector: CpuCollector) -> Iterator[Callable[[float], Round]]:
    """An interval that has stacks, and whether there was a call for them, waited for so long."""
    with select.epoll() as epoll:
        epoll.register(collector.call_fd, select.EPOLLIN | select.EPOLLET)

        def following(wait_s: float) -> Round:
            end = time.monotonic() + LIMIT_S
            while time.monotonic() < end:
                collector.take_interval()
                time.sleep(0.1)
                has_called = bool(epoll.poll(wait_s))  # first: what is taken is not told
                if stacks := collector.poll():
                    return Round(stacks, has_called)
            raise AssertionError("the program was never sampled")

        yield following


def test_an_unknown_process_calls_and_one_whose_rows_are_being_made_does_not(
    collector: CpuCollector, program: int, next_round: Callable[[float], Round]
) -> None:
    maps = collector.unwind_maps
    assert maps is not None
    spaces: dict[ProcessKey, AddressSpace] = {}
    unwinder = Unwinder(
        maps,
        ModuleRegistry(),
        NoRows(),
        lambda key: spaces.setdefault(key, AddressSpace(key.tgid, key.start_ns)),
    )
    for _ in range(3):
        stacks, has_called = next_round(LIMIT_S)
        assert has_called, stacks

    end = time.monotonic() + LIMIT_S
    while maps.tgids() != [program] and time.monotonic() < end:
        for raw in next_round(0).stacks:
            unwinder.note(raw)
        unwinder.step()
    next_round(0)  # what was under way when it became known

    for _ in range(10):
        stacks, has_called = next_round(0)
        assert {raw.end for raw in stacks} == {StackEnd.NO_MAPPING}, unwinder.status()
        assert not has_called
    unwinder.close()
