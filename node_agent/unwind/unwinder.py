"""Keeps the kernel program supplied with what it needs to walk user stacks.

Which processes: those that were sampled. Of each its executable mappings, and the rows of every
file mapped there. How a stack ended says what the kernel program was missing.
"""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from node_agent.capabilities import KERNEL_PROGRAMS, OTHER_PROCESSES, using
from node_agent.collectors.stacks import ProcessKey, RawStack, SampleKey, StackEnd, end_of
from node_agent.kernel.errors import MapError
from node_agent.kernel.structs import MAX_KNOWN_PROCESSES, ROW_CELL_BYTES, UNWIND_MAPPING
from node_agent.kernel.unwind_maps import UnwindMaps
from node_agent.processes.address_space import AddressSpace
from node_agent.symbols.modules import ModuleRegistry
from node_agent.unwind.layouts import Layout, Layouts
from node_agent.unwind.loading import Found, KnownProcess, Loading
from node_agent.unwind.modules import Modules, RowSource
from node_agent.unwind.spaces import squeeze
from node_agent.unwind.tables import DECAY, RowTable

ROWS_BYTES = 4 << 20  # nearly two million rows
MAPPINGS_BYTES = 2 << 20
MAX_PROCESSES = MAX_KNOWN_PROCESSES - 192  # each takes 96 bytes, used or not
GRACE_S = 2.0  # longer than any sample takes
LOOK_FOR_GONE = 3  # intervals
_NO_ADDRESSES: frozenset[int] = frozenset()


def split_limit(limit_bytes: int) -> tuple[int, int]:
    """Kernel memory for rows and for mappings: a library has thousands of rows, each process its
    own mappings."""
    return limit_bytes * 2 // 3, limit_bytes // 3


class Unwinder:
    """See the module's docstring. Raises nothing once it is made: `lost` counts what went wrong.

    `space_of` gives the mappings of a process as others have read them already. `rows_bytes` and
    `mappings_bytes` bound the kernel memory, which is taken as it is needed.
    """

    def __init__(
        self,
        maps: UnwindMaps,
        registry: ModuleRegistry,
        source: RowSource,
        space_of: Callable[[ProcessKey], AddressSpace],
        rows_bytes: int = ROWS_BYTES,
        mappings_bytes: int = MAPPINGS_BYTES,
    ) -> None:
        self.lost: dict[str, int] = {}
        self.last_error = ""
        self._maps = maps
        self._table = RowTable(rows_bytes // ROW_CELL_BYTES, GRACE_S)
        self._layouts = Layouts(maps, self._table, mappings_bytes // UNWIND_MAPPING.size, GRACE_S)
        self._modules = Modules(maps, registry, source, self._table)
        self._loading = Loading(space_of, self._modules.identify, registry.faults)
        self._processes: dict[ProcessKey, KnownProcess] = {}
        self._by_tgid: dict[int, ProcessKey] = {}
        self._intervals = 0

    def note(self, raw: RawStack) -> None:
        """Look how a stack ended; what follows from that is done by `step`."""
        if raw.end is StackEnd.COMPLETE or raw.end is StackEnd.NO_USER:
            return
        known = self._processes.get(raw.process)
        if known is None:
            self._loading.wait(raw.process)
            return
        if raw.end is StackEnd.NO_MAPPING:
            self._table.hint(known.layout.modules)
        self._loading.note(raw, known)

    def step(self) -> None:
        """Take in finished rows, load processes, publish what changed. Never waits for anything."""
        now_s = time.monotonic()
        self._reclaim(now_s)
        try:
            finished = self._modules.collect()
            found: list[Found] = []
            if self._loading.is_needed:
                with using(*OTHER_PROCESSES):
                    found = self._loading.read(self._processes, now_s)
            if finished or found or self._layouts.is_dirty:
                with using(*KERNEL_PROGRAMS):
                    for module in self._modules.place(finished):
                        self._layouts.touch(module)
                    self._apply(found, now_s)
            if finished or found:
                self._modules.wake()
            if self._modules.is_awake:
                self._modules.ask()
        except (MapError, OSError) as error:
            self._fail(error)

    def end_interval(self, counts: Mapping[SampleKey, int]) -> None:
        """Let the samples of an interval decide who has room; forget processes that are gone."""
        now_s = time.monotonic()
        samples: dict[ProcessKey, int] = {}
        for key, count in counts.items():
            if end_of(key.flags) is not StackEnd.NO_USER:
                process = ProcessKey(key.tgid, key.start_ns, key.exec_id)
                samples[process] = samples.get(process, 0) + count
        for known in self._processes.values():
            known.score *= DECAY
        lists: dict[Layout, int] = {}
        modules: dict[int, int] = {}
        for process, count in samples.items():
            held = self._processes.get(process)
            if held is None:  # a fork that the kernel program walks by its parent's record
                self._loading.wait(process)
                continue
            held.score += count
            lists[held.layout] = lists.get(held.layout, 0) + count
            for module in held.layout.modules:
                modules[module] = modules.get(module, 0) + count
            self._loading.compare(process, held)
        self._table.credit(modules)
        self._modules.end_interval()
        self._layouts.credit(lists)
        self._intervals += 1
        try:
            alive = None
            if self._intervals % LOOK_FOR_GONE == 0:
                # /proc may hide other users' processes
                with using(*OTHER_PROCESSES), os.scandir("/proc") as entries:
                    alive = {int(entry.name) for entry in entries if entry.name.isdigit()}
            with using(*KERNEL_PROGRAMS):
                self._contest(now_s)
                if alive is not None:
                    for tgid in [tgid for tgid in self._by_tgid if tgid not in alive]:
                        self._drop(self._by_tgid[tgid], now_s)
                    self._trim()
        except (MapError, OSError) as error:
            self._fail(error)
        self._modules.wake()

    @property
    def is_idle(self) -> bool:
        """Whether `step` has nothing to do until a child has ended, or may be started."""
        busy = self._loading.is_needed or self._layouts.is_dirty
        return not (busy or self._modules.is_awake or self._modules.has_answers)

    @property
    def is_settled(self) -> bool:
        """Whether all that was noted is in the kernel, as far as it can be."""
        return self.is_idle and not self._modules.pending

    def signals(self, process: ProcessKey) -> frozenset[int]:
        """Addresses that signal handlers of a process return to: see spaces.signal_addresses."""
        known = self._processes.get(process)
        return known.layout.signals if known is not None else _NO_ADDRESSES

    def used_modules(self) -> set[int]:
        """Hashes of the files that something is still to be done with."""
        return self._modules.used()

    def map_bytes(self) -> int:
        """Kernel memory of rows and mappings."""
        return self._maps.memory_bytes()

    def status(self) -> dict[str, Any]:
        """What there is, for `status --json`."""
        return {
            "processes": len(self._processes),
            "processes_waiting": self._loading.waiting,
            "mapping_lists": len(self._layouts),
            "mapping_lists_without_room": len(self._layouts.starved()),
            "mappings": self._layouts.arena.used,
            "mappings_limit": self._layouts.arena.limit,
            "modules": self._table.kinds(),
            "row_bytes": self._table.arena.used * ROW_CELL_BYTES,
            "row_bytes_limit": self._table.arena.limit * ROW_CELL_BYTES,
            "rows_asked": self._modules.pending,
            "map_bytes": self.map_bytes(),
            "lost": self.lost | self._loading.lost | self._layouts.lost | self._modules.lost,
            "error": self.last_error,
        }

    def close(self) -> None:
        """End a running child."""
        self._modules.close()

    def _reclaim(self, now_s: float) -> None:
        if self._table.arena.reclaim(now_s):
            self._modules.wake()
        self._layouts.arena.reclaim(now_s)

    def _apply(self, found: list[Found], now_s: float) -> None:
        left: list[tuple[ProcessKey, Layout]] = []
        for key, space, parts in found:
            known = self._processes.get(key)
            if known is not None and known.layout.squeezed == squeeze(parts):
                continue
            if known is not None:
                left.append((key, known.layout))
                known.layout = self._layouts.join(key, parts)
                continue
            before = self._by_tgid.get(key.tgid)
            if before is not None:  # exec, or the id is another process's by now
                left.append((before, self._processes.pop(before).layout))
            elif len(self._processes) >= MAX_PROCESSES:
                self._shed(now_s)
            self._processes[key] = KnownProcess(space, self._layouts.join(key, parts), now_s)
            self._by_tgid[key.tgid] = key
        self._layouts.publish(now_s)
        for key, layout in left:
            current = self._by_tgid.get(key.tgid)
            if current is not None and self._processes[current].layout.extent is None:
                self._maps.drop_process(key.tgid)  # it still leads to the list that is given up
            self._layouts.leave(key, layout, now_s)

    def _contest(self, now_s: float) -> None:
        leaving = self._table.compete()
        touched: dict[Layout, None] = {}
        for module, _ in leaving:
            touched.update(dict.fromkeys(self._layouts.touch(module)))
        self._layouts.withdraw(touched, now_s)
        for _, extent in leaving:
            self._table.arena.retire(extent, now_s)
        self._layouts.compete(now_s)

    def _trim(self) -> None:
        for arena, shards in (
            (self._table.arena, self._maps.rows),
            (self._layouts.arena, self._maps.mappings),
        ):
            dropped = arena.trim()
            for number in range(arena.shards, arena.shards + dropped):
                shards.drop(number)

    def _shed(self, now_s: float) -> None:
        """Forget the least sampled sixteenth of the processes."""
        order = sorted(self._processes, key=lambda key: self._processes[key].score)
        for key in order[: MAX_PROCESSES // 16]:
            self._drop(key, now_s)
            self._count("processes_full")

    def _drop(self, key: ProcessKey, now_s: float) -> None:
        self._maps.drop_process(key.tgid)
        del self._by_tgid[key.tgid]
        self._layouts.leave(key, self._processes.pop(key).layout, now_s)

    def _fail(self, error: MapError | OSError) -> None:
        self._count("map_error" if isinstance(error, MapError) else "system_error")
        self.last_error = str(error)

    def _count(self, reason: str) -> None:
        self.lost[reason] = self.lost.get(reason, 0) + 1
