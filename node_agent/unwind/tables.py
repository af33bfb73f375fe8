"""Which modules have their rows in the kernel's array, and who gives way to whom. Pure.

Room is contested by samples: at the end of an interval a module without room takes that of modules
that were sampled less than half as much. The half keeps two equals from taking turns.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from node_agent.kernel.structs import ROW_CELLS_PER_SHARD
from node_agent.unwind.arena import Arena, Extent
from node_agent.unwind.spaces import Kind, Place

DECAY = 0.5  # of a module's score, an interval
KEPT_UNUSED = 60  # intervals that rows stay which no known process uses: it may start again
KEPT_WITHOUT_ROWS = 6  # intervals that a file is remembered that has no rows in the kernel


@dataclass(slots=True)
class _Module:
    """What is known of one module. (Without words here `dataclasses` runs all of `inspect`.)"""

    state: Place | Kind = Kind.PENDING
    cells: int = 0  # that its rows take, once that is known
    score: float = 0.0  # samples of the processes that map it, decaying
    users: int = 0  # lists of mappings that it is in
    unused: int = 0  # ended intervals without any
    asked: bool = False  # whether its rows are being made


class RowTable:
    """The modules that known processes map, by their hashes."""

    def __init__(self, max_cells: int, grace_s: float, shard: int = ROW_CELLS_PER_SHARD) -> None:
        self.arena = Arena(shard, max_cells, grace_s)
        self._modules: dict[int, _Module] = {}

    def look(self, module: int) -> Place | Kind:
        """Where the rows of a module are, or why there are none."""
        known = self._modules.get(module)
        return Kind.PENDING if known is None else known.state

    def use(self, modules: Iterable[int]) -> None:
        """One more list of mappings holds these."""
        for module in modules:
            known = self._modules.setdefault(module, _Module())
            known.users += 1
            known.unused = 0
            if known.state is Kind.NO_ROWS:
                known.state = Kind.PENDING  # its file may be within reach of this process

    def release(self, modules: Iterable[int]) -> None:
        """A list of mappings that held these is gone."""
        for module in modules:
            self._modules[module].users -= 1

    def wanted(self) -> list[int]:
        """Modules whose rows should be made now, the most sampled first."""
        return sorted(
            (
                module
                for module, known in self._modules.items()
                if known.state is Kind.PENDING
                and known.users
                and not known.asked
                and (known.cells == 0 or self.arena.fits(known.cells))
            ),
            key=lambda module: -self._modules[module].score,
        )

    def asked(self, module: int) -> None:
        """The rows of a module are being made: until `settle` or `allocate` it is not wanted."""
        self._modules[module].asked = True

    def allocate(self, module: int, cells: int) -> Extent | None:
        """Room for the rows of a module, which are ready; None, and the module has no room."""
        known = self._modules.setdefault(module, _Module())
        known.asked = False
        known.cells = cells
        extent = self.arena.allocate(cells) if cells else None
        if extent is None:
            known.state = Kind.NO_ROOM if cells else Kind.NO_ROWS
        return extent

    def settle(self, module: int, state: Place | Kind) -> None:
        """The rows of a module are in their place, or there will be none."""
        known = self._modules.setdefault(module, _Module())
        known.state = state
        known.asked = False

    def hint(self, modules: Iterable[int]) -> None:
        """A sample had use for these: it counts before the interval ends."""
        for module in modules:
            self._modules[module].score += 1

    def credit(self, samples: Mapping[int, int]) -> None:
        """End an interval in which the processes that map a module had so many samples."""
        for module, known in self._modules.items():
            known.score = known.score * DECAY + samples.get(module, 0)
            known.unused = 0 if known.users else known.unused + 1

    def compete(self) -> list[tuple[int, Extent]]:
        """The modules that give way, and the room they had, for the caller to retire once no list
        of mappings leads there. Their state says NO_ROOM from now on, that of the modules that
        will take their place PENDING."""
        leaving = self._long_unused()
        starved = [
            module
            for module, known in self._modules.items()
            if known.state is Kind.NO_ROOM and known.users and known.cells <= self.arena.limit
        ]
        starved.sort(key=lambda module: -self._modules[module].score)
        for module in starved:
            known = self._modules[module]
            if self.arena.could_hold(known.cells, [extent for _, extent in leaving]):
                known.state = Kind.PENDING
                continue
            losers = self._losers(known, [extent for _, extent in leaving])
            if losers:
                known.state = Kind.PENDING
                leaving += losers
                # One an interval: what else fits is seen when this one has its place.
                break
        for module, _ in leaving:
            gone = self._modules[module]
            gone.state = Kind.NO_ROOM
            if not gone.users:
                del self._modules[module]
        return leaving

    def modules(self) -> Iterable[int]:
        """The hashes of all that are known."""
        return self._modules.keys()

    def kinds(self) -> dict[str, int]:
        """How many modules there are of each state; those with rows are `loaded`."""
        found: dict[str, int] = {}
        for known in self._modules.values():
            state = known.state
            word = state.name.lower() if isinstance(state, Kind) else "loaded"
            found[word] = found.get(word, 0) + 1
        return found

    def __len__(self) -> int:
        return len(self._modules)

    def _placed(self) -> Iterator[tuple[int, _Module, Extent]]:
        for module, known in self._modules.items():
            if isinstance(known.state, Place):
                yield module, known, known.state.extent

    def _long_unused(self) -> list[tuple[int, Extent]]:
        """Forgets modules that no process has used for long; returns those that hold room."""
        leaving = []
        for module, known in list(self._modules.items()):
            if isinstance(known.state, Place):
                if known.unused > KEPT_UNUSED:
                    leaving.append((module, known.state.extent))
            elif known.unused > KEPT_WITHOUT_ROWS and not known.asked:
                del self._modules[module]
        return leaving

    def _losers(self, starved: _Module, spare: list[Extent]) -> list[tuple[int, Extent]]:
        """The least sampled modules whose room, with `spare`, suffices; none where the less
        sampled ones don't have enough of it in a row."""
        weaker = [
            (known.score if known.users else -1.0, module, extent)
            for module, known, extent in self._placed()
            if extent not in spare and (not known.users or known.score < starved.score / 2)
        ]
        weaker.sort()
        taken: list[tuple[int, Extent]] = []
        for _, module, extent in weaker:
            taken.append((module, extent))
            if self.arena.could_hold(starved.cells, spare + [extent for _, extent in taken]):
                return self._needed(starved.cells, spare, taken)
        return []

    def _needed(
        self, cells: int, spare: list[Extent], taken: list[tuple[int, Extent]]
    ) -> list[tuple[int, Extent]]:
        """`taken` without those, the most sampled first, that the room doesn't take."""
        kept = list(taken)
        for loser in reversed(taken[:-1]):
            fewer = [other for other in kept if other != loser]
            if self.arena.could_hold(cells, spare + [extent for _, extent in fewer]):
                kept = fewer
        return kept
