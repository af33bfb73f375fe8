"""Lists of mappings in the kernel's maps, each shared by the processes that it is true of.

What leads somewhere is written last: rows, then the list, then the record of each process. A list
that changes is written anew elsewhere; the old one stays for the samples in flight (see arena).
"""

from collections.abc import Iterable

from node_agent.collectors.stacks import ProcessKey
from node_agent.kernel.structs import MAPPINGS_PER_SHARD
from node_agent.kernel.unwind_maps import ProcessRecord, UnwindMaps
from node_agent.unwind.arena import Arena, Extent
from node_agent.unwind.spaces import (
    SQUEEZED_BYTES,
    Kind,
    Part,
    expand,
    pack_parts,
    signal_addresses,
    squeeze,
)
from node_agent.unwind.tables import DECAY, RowTable

TOGETHER_S = 1.0  # how long a list waits for more of its modules before it is written again
_NEVER = float("-inf")


class Layout:
    """One list, and who uses it. Its parts are held squeezed: a host may have 65,536 of them."""

    __slots__ = ("extent", "modules", "processes", "score", "signals", "squeezed", "written_s")

    def __init__(self, parts: tuple[Part, ...]) -> None:
        self.squeezed = squeeze(parts)
        self.modules = frozenset(part.module for part in parts if part.module is not None)
        self.processes: dict[ProcessKey, None] = {}
        self.extent: Extent | None = None
        self.written_s = _NEVER  # when it was written last, or found no room
        self.score = 0.0
        self.signals: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.squeezed) // SQUEEZED_BYTES


class Layouts:
    """All lists. `lost` counts, by reason, what did not fit."""

    def __init__(
        self, maps: UnwindMaps, table: RowTable, max_mappings: int, grace_s: float
    ) -> None:
        self.arena = Arena(MAPPINGS_PER_SHARD, max_mappings, grace_s)
        self.lost: dict[str, int] = {}
        self._maps = maps
        self._table = table
        self._by_parts: dict[bytes, Layout] = {}
        self._by_module: dict[int, dict[Layout, None]] = {}
        self._dirty: dict[Layout, None] = {}

    def join(self, key: ProcessKey, parts: tuple[Part, ...]) -> Layout:
        """The list of `parts`, from now on that of process `key` too (or its record is new)."""
        layout = self._by_parts.get(squeeze(parts))
        if layout is None:
            layout = Layout(parts)
            self._by_parts[layout.squeezed] = layout
            self._table.use(layout.modules)
            for module in layout.modules:
                self._by_module.setdefault(module, {})[layout] = None
            self._dirty[layout] = None
        layout.processes[key] = None
        if layout.extent is not None:
            self._record(layout, key)
        return layout

    def leave(self, key: ProcessKey, layout: Layout, now_s: float) -> None:
        """Process `key` no longer uses it. Its record must be gone, or that of another list."""
        layout.processes.pop(key, None)
        if layout.processes:
            return
        del self._by_parts[layout.squeezed]
        self._dirty.pop(layout, None)
        for module in layout.modules:
            holders = self._by_module[module]
            del holders[layout]
            if not holders:
                del self._by_module[module]
        self._table.release(layout.modules)
        self._retire(layout, now_s)

    def touch(self, module: int) -> list[Layout]:
        """The rows of a module came or went: the lists that have to be written again."""
        touched = list(self._by_module.get(module, ()))
        self._dirty.update(dict.fromkeys(touched))
        return touched

    def publish(self, now_s: float) -> None:
        """Write the lists that changed. Raises MapError.

        A list of which more is about to change waits a little, unless it was never written.
        """
        for layout in list(self._dirty):
            waits = layout.written_s != _NEVER and not self._is_settled(layout)
            if not waits or now_s - layout.written_s >= TOGETHER_S:
                self._write(layout, now_s)

    def withdraw(self, layouts: Iterable[Layout], now_s: float) -> None:
        """Make sure that these lead to nothing that has left: write them again, or where there is
        no room forget them. Raises MapError."""
        for layout in layouts:
            if not self._write(layout, now_s):
                self._unpublish(layout, now_s)

    def compete(self, now_s: float) -> None:
        """Let lists without room take that of lists that were sampled less than half as much."""
        for layout in self.starved():
            if not self.arena.could_hold(len(layout)):
                held = [other for other in self._by_parts.values() if other.extent is not None]
                weakest = min(held, key=lambda other: other.score, default=None)
                if weakest is None or weakest.score >= layout.score / 2:
                    return
                self._unpublish(weakest, now_s)
            self._dirty[layout] = None

    def starved(self) -> list[Layout]:
        """Lists that found no room, the most sampled first."""
        found = [
            layout
            for layout in self._by_parts.values()
            if layout.extent is None and len(layout) and layout.written_s != _NEVER
        ]
        return sorted(found, key=lambda layout: -layout.score)

    def credit(self, samples: dict[Layout, int]) -> None:
        """An interval has ended in which the processes of a list had so many samples."""
        for layout in self._by_parts.values():
            layout.score = layout.score * DECAY + samples.get(layout, 0)

    @property
    def is_dirty(self) -> bool:
        """Whether `publish` has something to do."""
        return bool(self._dirty)

    def __len__(self) -> int:
        return len(self._by_parts)

    def _is_settled(self, layout: Layout) -> bool:
        return not any(self._table.look(module) is Kind.PENDING for module in layout.modules)

    def _write(self, layout: Layout, now_s: float) -> bool:
        """Whether it had room; else what there is of it stays, which is right if less complete."""
        layout.written_s = now_s
        self._dirty.pop(layout, None)
        extent = self.arena.allocate(len(layout)) if len(layout) else None
        if extent is None:
            self._count("mappings_full" if len(layout) else "no_code")
            return False
        parts = expand(layout.squeezed)
        self._maps.mappings.write(extent.first, pack_parts(parts, self._table.look))
        self._retire(layout, now_s)
        layout.extent = extent
        layout.signals = signal_addresses(parts, self._table.look)
        for key in layout.processes:
            self._record(layout, key)
        return True

    def _unpublish(self, layout: Layout, now_s: float) -> None:
        for key in layout.processes:
            self._maps.drop_process(key.tgid)
        self._retire(layout, now_s)

    def _record(self, layout: Layout, key: ProcessKey) -> None:
        assert layout.extent is not None
        record = ProcessRecord(key.start_ns, key.exec_id, *layout.extent)
        if not self._maps.put_process(key.tgid, record):
            self._count("processes_full")

    def _retire(self, layout: Layout, now_s: float) -> None:
        if layout.extent is not None:
            self.arena.retire(layout.extent, now_s)
            layout.extent = None

    def _count(self, reason: str) -> None:
        self.lost[reason] = self.lost.get(reason, 0) + 1
