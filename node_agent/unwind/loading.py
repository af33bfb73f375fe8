"""Which processes have to be loaded, or loaded again, and what they have mapped."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from typing import NamedTuple

from node_agent.collectors.stacks import ProcessKey, RawStack, StackEnd
from node_agent.faults import Faults
from node_agent.kernel.structs import MAX_MAPPINGS
from node_agent.processes.address_space import AddressSpace
from node_agent.processes.mappings import Mapping as MappedRange
from node_agent.unwind.layouts import Layout
from node_agent.unwind.spaces import Kind, Part, fit, plan_parts

MAX_WAITING = 4_096
MAX_LOADS = 64  # a step
RELOAD_S = 0.5  # how long a process's mappings are believed, at least
MAX_RELOAD_S = 30.0
COST_FACTOR = 400  # a reload that takes 1 ms is not repeated before 0.4 s
# How soon the mappings are doubted by a stack that ended so.
_DOUBTS = {
    StackEnd.NO_MAPPING: 1,
    StackEnd.READ_FAULT: 20,
    StackEnd.UNSUPPORTED_RULE: 20,
    StackEnd.NO_ROWS: 20,
}


class KnownProcess:
    """A process that the kernel program knows."""

    __slots__ = ("layout", "read_s", "score", "space", "version", "wait_s")

    def __init__(self, space: AddressSpace, layout: Layout, now_s: float) -> None:
        self.space = space
        self.layout = layout
        self.version = space.version
        self.score = 1.0  # it was sampled, or nobody would know it
        self.read_s = now_s
        self.wait_s = RELOAD_S


class Found(NamedTuple):
    """What a process has mapped now."""

    process: ProcessKey
    space: AddressSpace
    parts: tuple[Part, ...]


class Loading:
    """The processes that wait to be known, and those whose mappings are doubted.

    `space_of` gives the mappings of a process as others have read them already; `identify` is
    Modules.identify. `lost` counts, by reason, the processes that could not be loaded, and those
    of which parts are left out (`mappings_cut`).
    """

    def __init__(
        self,
        space_of: Callable[[ProcessKey], AddressSpace],
        identify: Callable[[int, MappedRange], int | Kind],
        faults: Faults | None = None,
    ) -> None:
        self._faults = faults or Faults()
        self.lost: dict[str, int] = {}
        self._space_of = space_of
        self._identify = identify
        self._waiting: dict[ProcessKey, None] = {}
        self._doubted: dict[ProcessKey, None] = {}

    def wait(self, process: ProcessKey) -> None:
        """The kernel program does not know it. Who was sampled last is read first: where thousands
        start and end each second, what is sampled again and again is what still runs."""
        self._waiting.pop(process, None)
        self._waiting[process] = None
        if len(self._waiting) > MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
            self._count("waiting_full")

    def note(self, raw: RawStack, known: KnownProcess) -> None:
        """A stack of a known process did not reach its entry point."""
        if raw.end not in _DOUBTS:
            return
        changed = known.version != known.space.version
        if changed or time.monotonic() - known.read_s >= known.wait_s * _DOUBTS[raw.end]:
            self._doubted[raw.process] = None

    def compare(self, process: ProcessKey, known: KnownProcess) -> None:
        """Doubt its mappings where others have read newer ones."""
        if known.version != known.space.version:
            self._doubted[process] = None

    @property
    def waiting(self) -> int:
        """How many processes wait to be known."""
        return len(self._waiting)

    @property
    def is_needed(self) -> bool:
        """Whether `read` has something to do."""
        return bool(self._waiting or self._doubted)

    def read(self, processes: Mapping[ProcessKey, KnownProcess], now_s: float) -> list[Found]:
        """Mappings of processes that are not among `processes` yet, or doubted."""
        read: list[Found | None] = []
        doubted = list(islice(self._doubted, MAX_LOADS // 2))  # new ones may never cease to come
        waiting = list(islice(reversed(self._waiting), MAX_LOADS - len(doubted)))
        for key in [*waiting, *doubted]:
            self._waiting.pop(key, None)
            self._doubted.pop(key, None)
            work = partial(self._read, key, processes.get(key), now_s)
            read.append(self._faults.contain("mappings", key, work))
        return [found for found in read if found is not None]

    def _read(self, key: ProcessKey, known: KnownProcess | None, now_s: float) -> Found | None:
        started_s = time.monotonic()
        space = self._space_of(key) if known is None else known.space
        if known is not None and known.version == space.version:
            space.refresh()
        if not space.is_readable() or space.mappings is None or space.gone:
            self._count("process_gone" if space.gone else "process_unreadable")
            return None
        if known is not None:
            known.read_s = now_s
            if known.version == space.version:
                known.wait_s = min(2 * known.wait_s, MAX_RELOAD_S)
                return None
            known.version = space.version
        parts = plan_parts(space.mappings.entries, partial(self._identify, key.tgid))
        if len(parts) > MAX_MAPPINGS:
            self._count("mappings_cut")
            parts = fit(parts)
        if known is not None:
            took_s = time.monotonic() - started_s
            known.wait_s = max(RELOAD_S, COST_FACTOR * took_s)
        return Found(key, space, parts)

    def _count(self, reason: str) -> None:
        self.lost[reason] = self.lost.get(reason, 0) + 1
