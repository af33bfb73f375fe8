"""Names of JIT code from the perf map of its process, followed as the file grows.

Nothing is opened for a process until a sample of it hits JIT code. The text is parsed here, in the
sampler: docs/decisions/0016-perf-maps.md says why that needs no child. What it may cost is bounded:
bytes at once and a second over all processes, bytes, entries and names of one, files open at once.
"""

import time
from collections import OrderedDict
from collections.abc import Iterable

from node_agent.processes.errors import ProcessGoneError
from node_agent.symbols.errors import PerfMapError
from node_agent.symbols.modules import JIT, ModuleRegistry
from node_agent.symbols.perf_map_file import open_perf_map
from node_agent.symbols.perf_map_names import clean_name
from node_agent.symbols.perf_map_reader import Allowance, PerfMapReader
from node_agent.symbols.perf_map_table import MAX_ENTRIES, PerfMapTable, parse_lines
from wire.limits import MAX_NAME_BYTES

FOLLOW_S = 1.0
ABSENT_S = 30.0  # a map may be switched on while its process runs
MAX_MAPS = 64  # open at once
MAX_ALL_ENTRIES = 400_000  # of all maps: 6.4 MB
MAX_NAMES = 5_000  # of one process, so that none can fill the run's dictionary alone
BURST_BYTES = 2 << 20  # some 30,000 lines, about 0.1 s of CPU
BYTES_PER_S = 128 << 10
_MAX_FRAMES = 20_000
_MAX_MISSED = 1_000
_NUMBERS_BYTES = 64  # of a line, before the name


class PerfMaps:
    """The perf maps of all processes: what they may cost together. `counts` is added to, by
    reason: maps that were refused, lines left out, maps that had to make room."""

    def __init__(
        self,
        registry: ModuleRegistry,
        counts: dict[str, int],
        burst_bytes: int = BURST_BYTES,
        bytes_per_s: int = BYTES_PER_S,
    ) -> None:
        self.registry = registry
        self.allowance = Allowance(burst_bytes, bytes_per_s)
        self._counts = counts
        self._open: OrderedDict[PerfMap, None] = OrderedDict()  # least recently used first

    def of(self, tgid: int, start_ns: int) -> "PerfMap":
        """The perf map of a process, which may have none."""
        return PerfMap(self, tgid, start_ns)

    def used(self, perf_map: "PerfMap") -> None:
        """Keep this one open; others may have to make room."""
        self._open[perf_map] = None
        self._open.move_to_end(perf_map)
        while len(self._open) > 1 and (
            len(self._open) > MAX_MAPS
            or sum(len(other.table) for other in self._open) > MAX_ALL_ENTRIES
        ):
            self.count("perf_map_evicted")
            next(iter(self._open)).close()

    def closed(self, perf_map: "PerfMap") -> None:
        """This one has no file open any more."""
        self._open.pop(perf_map, None)

    def rotate(self) -> None:
        """Close the maps of processes that were not sampled since the last call: an open file
        keeps its room on the disk."""
        for perf_map in [other for other in self._open if not other.was_used]:
            perf_map.close()
        for perf_map in self._open:
            perf_map.was_used = False

    def count(self, reason: str, number: int = 1) -> None:
        """Count what was left out."""
        self._counts[reason] = self._counts.get(reason, 0) + number


class PerfMap:
    """The perf map of process (tgid, start_ns), if it has one."""

    def __init__(self, maps: PerfMaps, tgid: int, start_ns: int) -> None:
        self.table = PerfMapTable()
        self.was_used = True
        self._maps = maps
        self._tgid, self._start_ns = tgid, start_ns
        self._reader: PerfMapReader | None = None
        self._due = 0.0
        self._refused = ""
        self._frames: dict[int, bytes] = {}  # by start of the entry
        self._missed: set[int] = set()
        self._names: set[bytes] = set()
        self._is_changed = False

    def follow(self) -> bool:
        """Read what was appended, at most once in FOLLOW_S; whether addresses that were asked for
        before may have other names now."""
        now = time.monotonic()
        self.was_used = True
        if now < self._due:
            return False
        self._due = now + (FOLLOW_S if self._is_open() else ABSENT_S)
        if self._reader is not None:
            try:
                self._read(self._reader)
            except OSError:
                self._maps.count("perf_map_denied")
                self.close()
        changed, self._is_changed = self._is_changed, False
        return changed

    def frame(self, address: int) -> bytes | None:
        """The packed frame of the function that holds `address`; None where it has no name."""
        entry = self.table.find(address)
        if entry is None:
            if len(self._missed) < _MAX_MISSED:
                self._missed.add(address)
            return None
        known = self._frames.get(entry.start)
        if known is None:
            known = self._name(entry.line)
            if known is not None:
                if len(self._frames) >= _MAX_FRAMES:
                    self._frames.clear()
                self._frames[entry.start] = known
        return known

    def frames(self) -> Iterable[bytes]:
        """Those that `frame` has found and would give again."""
        return self._frames.values()

    def close(self) -> None:
        """Forget the file and what it said; it is opened again ABSENT_S later, if it is used."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._due = time.monotonic() + ABSENT_S
        self._begin()
        self._maps.closed(self)

    def _begin(self) -> None:
        self._is_changed |= len(self.table) > 0
        self.table = PerfMapTable()
        self._frames.clear()

    def _is_open(self) -> bool:
        if self._reader is not None and self._reader.is_unlinked():
            self.close()
        if self._reader is None:
            try:
                descriptor = open_perf_map(self._tgid, self._start_ns)
            except ProcessGoneError:
                return False
            except PerfMapError as error:
                if error.reason != self._refused:
                    self._refused = error.reason
                    self._maps.count(f"perf_map_{error.reason}")
                return False
            if descriptor is None:
                return False
            self._reader = PerfMapReader(descriptor, self._maps.count)
        return True

    def _read(self, reader: PerfMapReader) -> None:
        if reader.rewind_rewritten():
            self._begin()
        pieces = reader.lines(self._maps.allowance) if len(self.table) < MAX_ENTRIES else ()
        for lines in pieces:
            parsed = parse_lines(*lines)
            if parsed.bad_lines:
                self._maps.count("perf_map_bad_line", parsed.bad_lines)
            for start in self.table.merge(parsed.entries):
                self._is_changed |= self._frames.pop(start, None) is not None
            if len(self.table) >= MAX_ENTRIES:
                self._maps.count("perf_map_full")
                break
        found = [address for address in self._missed if self.table.find(address) is not None]
        self._missed.difference_update(found)
        self._is_changed |= bool(found)
        self._maps.used(self)

    def _name(self, position: int) -> bytes | None:
        if self._reader is None:
            return None
        try:
            line = self._reader.line_at(position, _NUMBERS_BYTES + MAX_NAME_BYTES)
        except OSError:
            return None
        fields = line.split(b" ", 2)
        if len(fields) < 3:  # it was written over since
            return None
        registry = self._maps.registry
        frame = registry.name_frame(JIT, clean_name(fields[2].decode("utf-8", "replace")))
        if frame == registry.unmapped:
            return None
        if frame not in self._names:
            if len(self._names) >= MAX_NAMES:
                self._maps.count("perf_map_names_full")
                return None
            self._names.add(frame)
        return frame
