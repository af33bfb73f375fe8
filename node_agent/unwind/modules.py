"""The files that processes have mapped: which they are, and how their rows get into the kernel."""

from collections.abc import Iterable
from typing import Protocol

from node_agent.kernel.structs import ROW_CELL_BYTES
from node_agent.kernel.unwind_maps import UnwindMaps
from node_agent.processes.mappings import Mapping
from node_agent.symbols.modules import ModuleRegistry, Source
from node_agent.unwind.builder import Built
from node_agent.unwind.spaces import Kind, Part, Place, Segment
from node_agent.unwind.tables import RowTable
from node_agent.unwind.vdso import NAME as VDSO_NAME
from node_agent.unwind.vdso import Vdso
from wire.hashes import module_hash
from wire.schema import Module, ModuleKind

MAX_ASKED = 8  # at a time: who is sampled most is asked for first, and that may change


class RowSource(Protocol):
    """Makes rows without ever blocking: node_agent.unwind.builder.RowBuilder."""

    def request(self, build_id: bytes, source: Source | int) -> bool: ...
    def prefer(self, weights: dict[bytes, int]) -> None: ...
    @property
    def has_answers(self) -> bool: ...
    def step(self) -> list[Built]: ...
    def close(self) -> None: ...


class Modules:
    """Identifies files and brings their rows into the kernel. `lost` counts, by reason, files
    that have none."""

    def __init__(
        self,
        maps: UnwindMaps,
        registry: ModuleRegistry,
        source: RowSource,
        table: RowTable,
    ) -> None:
        self.lost: dict[str, int] = {}
        self.is_awake = False  # whether there may be something to ask for
        self._maps = maps
        self._registry = registry
        self._rows = source
        self._table = table
        self._stopped: dict[int, int] = {}  # stacks that ended in a module, halved each interval
        self._asked: dict[bytes, int] = {}  # hash of a module by its build id
        self._vdso = Vdso()
        self._vdso_hash = module_hash(Module(ModuleKind.NATIVE, self._vdso.build_id, ""))

    @property
    def pending(self) -> int:
        """How many files are being read."""
        return len(self._asked)

    @property
    def has_answers(self) -> bool:
        """Whether `collect` has something at once."""
        return self._rows.has_answers

    def identify(self, tgid: int, mapping: Mapping) -> int | Kind:
        """The hash of the file behind a mapping, or the kind of what has none."""
        if mapping.path == VDSO_NAME:
            return self._vdso_hash if self._vdso.is_same(tgid, mapping) else Kind.NO_ROWS
        if not mapping.has_file:
            return Kind.FRAME_POINTER
        found = self._registry.native_module(tgid, mapping)
        if found is None:
            self._count("file_unidentified")
            return Kind.NO_ROWS
        return found

    def used(self) -> set[int]:
        """Hashes of files that may be asked for."""
        return {*self._asked.values(), *self._table.modules()}

    def wake(self) -> None:
        """Something has changed: others may be wanted now."""
        self.is_awake = True

    def ask(self) -> None:
        """Ask for the rows of the modules that need them most. Raises OSError."""
        free = MAX_ASKED - len(self._asked)
        wanted = self._table.wanted() if free > 0 else []
        # All modules of a process have its samples; those that stop its stacks are few.
        wanted.sort(key=lambda module: -self._stopped.get(module, 0))
        self.is_awake = len(wanted) > free
        for module in wanted[:free]:
            build_id, source = self._source_of(module)
            if not self._rows.request(build_id, source):
                break
            self._table.asked(module)
            self._asked[build_id] = module

    def stopped(self, parts: Iterable[Part], address: int) -> None:
        """A stack ended at `address`, for want of the rows of what is mapped there."""
        for part in parts:
            if part.start <= address < part.end and part.module is not None:
                self._stopped[part.module] = self._stopped.get(part.module, 0) + 1
                return

    def end_interval(self) -> None:
        """Let what stopped stacks most lately be made first, of what waits too."""
        asked = {build: self._stopped.get(module, 0) for build, module in self._asked.items()}
        self._rows.prefer(asked)
        self._stopped = {m: count // 2 for m, count in self._stopped.items() if count > 1}

    def collect(self) -> list[Built]:
        """What the source has finished."""
        return self._rows.step()

    def place(self, finished: Iterable[Built]) -> list[int]:
        """Write finished rows to the kernel, as far as there is room; the modules whose state has
        changed. Raises MapError."""
        settled = []
        for built in finished:
            module = self._asked.pop(built.build_id, None)
            if module is None:
                continue
            settled.append(module)
            rows = built.rows
            if rows is None or not rows.rows:
                is_go = rows is not None and rows.frame_pointers
                self._table.settle(module, Kind.FRAME_POINTER if is_go else Kind.NO_ROWS)
                if not is_go:
                    self._count("no_rows")
                continue
            extent = self._table.allocate(module, len(rows.rows) // ROW_CELL_BYTES)
            if extent is None:
                self._count("rows_full")
                continue
            self._maps.rows.write(extent.first, rows.rows)
            place = Place(
                extent,
                rows.base,
                tuple(Segment(s.offset, s.vaddr, s.size) for s in rows.segments),
                rows.signals,
            )
            self._table.settle(module, place)
        return settled

    def close(self) -> None:
        self._rows.close()

    def _source_of(self, module: int) -> tuple[bytes, Source | int]:
        """The build id of a module, and where its rows can be read from."""
        if module == self._vdso_hash:
            return self._vdso.build_id, self._vdso.open()
        return self._registry.modules[module].id, self._registry.sources[module]

    def _count(self, reason: str) -> None:
        self.lost[reason] = self.lost.get(reason, 0) + 1
