"""From raw addresses to content: each stack becomes frames of (module, offset) and their hash.

A stack runs from the root to the leaf: the user part, then the kernel part. One that is known costs
one look-up; what is new goes to stack_frames.py, and from there to addresses.py.
"""

import os
import time
from collections.abc import Callable, Collection, Iterable
from functools import partial
from itertools import chain
from typing import Protocol

from node_agent.addresses import Addresses, KernelFrameSource
from node_agent.collectors.stacks import ProcessKey, RawStack, SampleKey
from node_agent.cpython.names import PythonNames
from node_agent.cpython.structs import PYTHON_ID_END
from node_agent.generations import GenerationCache
from node_agent.processes.address_space import AddressSpace
from node_agent.stack_frames import StackFrames
from node_agent.symbols.modules import ModuleRegistry
from node_agent.symbols.perf_map import BURST_BYTES, PerfMaps
from wire.hashes import stack_hash

MAX_CACHED_STACKS = 20_000  # 0.2 KB each
UNSETTLED_S = 60.0  # how long a stack that leads into no mapping stays as it is


class DefinitionSink(Protocol):
    """Where stacks that the centre may not know yet are left."""

    def knows(self, stack_hash: bytes) -> bool: ...
    def add(self, stack_hash: bytes, packed: bytes) -> None: ...


class Normalizer:
    """Turns RawStacks into stack hashes. `counts` tells what could not be placed, by reason, in
    stacks or frames (not samples)."""

    def __init__(
        self,
        registry: ModuleRegistry,
        kernel: KernelFrameSource,
        definitions: DefinitionSink,
        max_samples: int,
        perf_map_burst_bytes: int = BURST_BYTES,
    ) -> None:
        self.counts: dict[str, int] = {}
        self.python = PythonNames(registry, self.counts)
        perf_maps = PerfMaps(registry, self.counts, perf_map_burst_bytes)
        self._addresses = Addresses(registry, kernel, perf_maps)
        self._frames = StackFrames(registry, self._addresses, self.python, self.counts)
        self._registry = registry
        self._definitions = definitions
        self._stacks: GenerationCache[int, bytes] = GenerationCache(
            min(max_samples, MAX_CACHED_STACKS)
        )
        self._interval: dict[int, bytes] = {}
        self._unsettled: dict[int, bytes] = {}
        self._unsettled_since = time.monotonic()
        self._lost_hash = stack_hash(registry.stack_lost)

    @property
    def signals(self) -> Callable[[ProcessKey], frozenset[int]]:
        """Addresses that signal handlers of a process return to; the unwinder knows them."""
        return self._frames.signals

    @signals.setter
    def signals(self, signals: Callable[[ProcessKey], frozenset[int]]) -> None:
        self._frames.signals = signals

    @property
    def is_excluded(self) -> Callable[[int], bool] | None:
        """Whether a process, by its tgid, is one by now that must not be read."""
        return self._addresses.is_excluded

    @is_excluded.setter
    def is_excluded(self, is_excluded: Callable[[int], bool] | None) -> None:
        self._addresses.is_excluded = is_excluded

    def add(self, raw: RawStack) -> bytes:
        """The hash of a stack; its frames go to the definitions when they are not known there.
        Those of a process of which something cannot be read, for a reason that nobody foresaw, are
        `[stack lost]`."""
        contain = self._registry.faults.contain
        for record in raw.python_names:  # perhaps of other processes
            contain("name", ("python", record[:PYTHON_ID_END]), partial(self._learn, record))
        known = contain("stack", raw.process, lambda: self._add(raw))
        if known is None:
            known = self._interval[raw.stack_key] = self.lost()
        return known

    def _learn(self, record: bytes) -> None:
        with self.python.spent:
            self.python.take(record)

    def _add(self, raw: RawStack) -> bytes:
        process = self._addresses.process(raw.process)
        if process.perf_map is not None and process.perf_map.follow():
            process.forget(self._addresses.next_token())
        key = process.token << 64 | raw.stack_key
        known = self._stacks.get(key) or self._unsettled.get(key)
        if known is None or not self._definitions.knows(known):
            parts = self._frames.of(raw, process)
            packed = b"".join(parts)
            known = stack_hash(packed)
            # The token may have changed while the mappings were read.
            key = process.token << 64 | raw.stack_key
            if self.python.unknown in parts:
                pass  # the missing name is sent again, at the latest in the next interval
            elif self._registry.unmapped in parts and not process.space.gone:
                self._unsettled[key] = known
            else:
                self._stacks.put(key, known)
            if not self._definitions.knows(known):
                self._definitions.add(known, packed)
        self._interval[raw.stack_key] = known
        return known

    def find(self, key: SampleKey) -> bytes:
        """The hash of a stack that was added in this interval (or lately), else that of
        `[stack lost]`, counted."""
        # The key is a hash over the process too, so it is enough by itself.
        known = self._interval.get(key.stack_key)
        if known is not None:
            return known
        process = self._addresses.processes.get((key.tgid, key.start_ns, key.exec_id))
        if process is not None:
            known = self._stacks.get(process.token << 64 | key.stack_key)
            if known is not None:
                return known
        return self.lost()

    def space(self, key: ProcessKey) -> AddressSpace:
        """The mappings of a process, which are read once for all."""
        return self._addresses.process(key).space

    def main_build_id(self, key: tuple[int, int, int]) -> str:
        """Build id (hex) of the program that a process runs; "" when it can't be told."""
        process = self._addresses.process(ProcessKey(*key))
        try:
            program = os.readlink(b"/proc/%d/exe" % key[0])  # noqa: PTH115 (bytes, not followed)
        except OSError:
            return ""
        if not process.space.is_readable() or process.space.mappings is None:
            return ""
        for mapping in process.space.mappings.entries:
            if mapping.path == program:
                base = self._addresses.base(key[0], mapping)
                return "" if isinstance(base, bytes) else self._registry.modules[base[0]].id.hex()
        return ""

    def end_interval(self) -> None:
        """Forget which stacks this interval had, and now and then those that may turn out
        better: a library may have been loaded where there was no mapping."""
        self._interval.clear()
        now = time.monotonic()
        if now - self._unsettled_since > UNSETTLED_S or len(self._unsettled) > MAX_CACHED_STACKS:
            self._unsettled_since = now
            self._unsettled.clear()

    def lost(self) -> bytes:
        """The hash of the stack of one frame, `[stack lost]`."""
        self._count("stack_lost")
        if not self._definitions.knows(self._lost_hash):
            self._definitions.add(self._lost_hash, self._registry.stack_lost)
        return self._lost_hash

    def rotate(self) -> None:
        """Forget stacks that were not seen since the last call, and what new ones are made of:
        addresses are many, and those of the known ones are not looked at."""
        self._addresses.forget_frames()
        self._stacks.rotate()

    def rotate_processes(self) -> None:
        """Forget processes that were not seen since the last call."""
        self._addresses.rotate()

    def forget_ended(self, ended: Collection[int]) -> None:
        """Forget the processes of these ids."""
        self._addresses.forget_ended(ended)

    @property
    def tgids(self) -> set[int]:
        """Of the processes that are remembered."""
        return {key[0] for key in self._addresses.processes.keys()}  # noqa: SIM118 (no dict)

    def used(self) -> Iterable[bytes]:
        """The packed frames that a stack may get without another look at the registry."""
        return chain(self._addresses.used(), self.python.used())

    def lengths(self) -> dict[str, int]:
        """How much is remembered."""
        return {
            "processes": len(self._addresses.processes),
            "mappings": self._addresses.mappings,
            "frames": self._addresses.cached_frames,
            "stacks": len(self._stacks) + len(self._unsettled),
            "python_names": len(self.python),
        }

    def _count(self, reason: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1
