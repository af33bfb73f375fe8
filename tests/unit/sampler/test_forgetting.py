"""Caches hold what the last minutes needed, and what is left in them still fits together."""

import os
import subprocess
from collections.abc import Callable

import pytest

from node_agent.collectors.stacks import ProcessKey, RawStack
from node_agent.processes.ended import EndedProcesses
from node_agent.processes.identity import Identities
from node_agent.processes.mappings import read_mappings, read_start_ticks
from node_agent.sampler import forgetting
from node_agent.sampler.definitions import build_definitions
from node_agent.sampler.forgetting import Forgetting
from node_agent.symbols import modules
from node_agent.symbols.modules import UNKNOWN, ModuleRegistry
from wire.hashes import pack_frame, stack_hash

TICK_NS = 10_000_000


class _Child:
    """A process of its own, and a stack of it."""

    def __init__(self, await_program: Callable[[subprocess.Popen[bytes]], None]) -> None:
        self.process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        await_program(self.process)
        start_ns = read_start_ticks(self.process.pid) * TICK_NS
        self.key = ProcessKey(self.process.pid, start_ns, 0)
        address = read_mappings(self.process.pid, start_ns).entries[0].start
        self.raw = RawStack(self.process.pid, self.key, "cat", 1, (), (address,), False)

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@pytest.fixture
def child(await_program):
    started = _Child(await_program)
    yield started
    started.end()


@pytest.fixture
def rig(bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(forgetting, "CLEAN_EVERY_S", 0.0)
    monkeypatch.setattr(modules, "SWEPT_AFTER", -1)
    identities = Identities({})
    made = Forgetting(bench.normalizer, bench.definitions, identities, bench.registry)
    return bench, identities, made


def test_an_end_is_told_one_look_late_and_once(child) -> None:
    ended = EndedProcesses()
    known = {child.process.pid, os.getpid()}
    assert ended.look(known) == set()
    child.end()
    assert ended.look(known) == set()
    assert ended.look(known) == {child.process.pid}
    assert ended.look({os.getpid()}) == set()


def test_a_process_that_has_ended_goes_and_one_that_runs_stays(rig, own, child) -> None:
    bench, identities, forget = rig
    for raw in (own.raw(*own.addresses[:2]), child.raw):
        bench.normalizer.add(raw)
        identities.labels(raw.process, 1, raw.thread_name, False)
    assert forget.lengths()["processes"] == forget.lengths()["labels"] == 2
    child.end()
    for _ in range(2):
        bench.normalizer.end_interval()
        bench.definitions.take()
        forget.end_interval()
    assert forget.lengths()["processes"] == forget.lengths()["labels"] == 1
    assert bench.normalizer.tgids == identities.tgids == {os.getpid()}


def test_files_and_names_of_no_use_are_forgotten(rig, own, child) -> None:
    bench, _, forget = rig
    registry = bench.registry
    kept = bench.normalizer.add(own.raw(*own.addresses[:2]))
    of_child = bench.normalizer.add(child.raw)
    registry.named_frame(UNKNOWN, "nobody has it")
    before = forget.lengths()
    child.end()
    bench.definitions.take()
    for _ in range(2):
        forget.end_interval()
    after = forget.lengths()
    assert after["names"] < before["names"]
    assert after["modules"] <= before["modules"]
    assert set(registry.sources) <= set(registry.modules)
    # Whatever is defined anew finds all that it is made of.
    bench.definitions.forget([kept, of_child])
    assert bench.normalizer.add(own.raw(*own.addresses[:2])) == kept
    stacks = bench.definitions.take()
    message = build_definitions("web-1", bytes(16), stacks, registry)
    assert message is not None
    assert [module.name for module in message.modules] == [own.libc]


def test_a_file_that_was_forgotten_is_known_again_when_it_is_mapped_again(own) -> None:
    registry = ModuleRegistry()
    mapping = own.mappings.find(own.addresses[0])
    assert mapping is not None
    first = registry.native_module(os.getpid(), mapping)
    assert first is not None
    registry.sweep([], [first])
    assert first in registry.modules
    registry.sweep([pack_frame(first, 7)], [])
    assert first in registry.modules
    registry.sweep([], [])
    assert first not in registry.modules
    assert registry.native_module(os.getpid(), mapping) == first
    assert first in registry.modules
    assert first in registry.sources


def test_constant_frames_outlive_every_sweep() -> None:
    registry = ModuleRegistry()
    registry.sweep([], [])
    frames = (registry.unmapped, registry.jit, registry.vdso, registry.stack_lost)
    message = build_definitions("web-1", bytes(16), {stack_hash(f): f for f in frames}, registry)
    assert message is not None
    assert len(message.names) == 4


def test_churn_leaves_nothing_behind(rig, own, await_program) -> None:
    """Processes that come and go, each with a stack of its own: what is left is what runs."""
    bench, identities, forget = rig
    for number in range(12):
        child = _Child(await_program)
        raw = child.raw._replace(user_ips=(child.raw.user_ips[0] + number,))
        bench.normalizer.add(raw)
        identities.labels(raw.process, 1, raw.thread_name, False)
        child.end()
        bench.definitions.take()
        bench.normalizer.end_interval()
        forget.rotate()
        forget.end_interval()
    lengths = forget.lengths()
    assert lengths["processes"] <= 2
    assert lengths["labels"] <= 2
    assert lengths["stacks"] <= 3
    assert lengths["defined_stacks"] <= 3
    assert lengths["frames"] <= 3


def test_a_sweep_comes_when_much_is_new() -> None:
    registry = ModuleRegistry()
    for number in range(modules.SWEPT_AFTER + 1):
        registry.named_frame(UNKNOWN, f"function {number}")
    assert registry.is_to_sweep
    registry.sweep([], [])
    assert not registry.is_to_sweep
