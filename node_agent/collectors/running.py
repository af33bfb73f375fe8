"""What the CPU collector holds while it runs: made anew, or taken over from the process before."""

import ctypes
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from node_agent.collectors.map_sizes import MapSizes
from node_agent.cpython.maps import PythonMaps
from node_agent.kernel.chain import CORE
from node_agent.kernel.libbpf import LoadedObject
from node_agent.kernel.maps import BookedInterval, Control, CountMap, PerCpuCounters
from node_agent.kernel.perf_event import CpuClock
from node_agent.kernel.ring_buffer import RingBuffer
from node_agent.kernel.structs import COUNTER_NAMES, SampleKeyC
from node_agent.kernel.unwind_maps import UnwindMaps

PROGRAM = "ff_sample_cpu"
EVEN, ODD, STACKS, CONTROL, COUNTERS, SCRATCH, EXCLUSIONS = MAPS = (
    *("ff_counts_even", "ff_counts_odd", "ff_stacks", "ff_control", "ff_counters", "ff_scratch"),
    "ff_exclusions",
)
PROCESSES, MAPPINGS, ROWS, WALK, PYTHON, LAYOUTS, NAMES, STATE, NAME = CORE_MAPS = (
    *("ff_processes", "ff_mappings", "ff_rows", "ff_unwind"),
    *("ff_python", "ff_py_layouts", "ff_py_names", "ff_py_state", "ff_py_name"),
)
# cpu NUMBER - RATE: an event's name in the store
_EVENT = re.compile(r"cpu(\d+)-(\d+)")
_SUFFIX = f"-{PROGRAM}"  # behind the mode: the program's name there


@dataclass(slots=True)
class Running:
    """What exists between `start` and `stop`."""

    loaded: LoadedObject
    clock: CpuClock
    count_maps: tuple[CountMap, CountMap]
    counters: PerCpuCounters
    control: Control
    ring: RingBuffer
    interval: BookedInterval  # the running one
    first: dict[str, int]  # the counters when this process began
    leftover: tuple[bytes, bytes]  # drained already, to be counted with the running interval
    unwind: UnwindMaps | None  # None in mode bcc
    python: PythonMaps | None  # likewise

    def begin_interval(self, interval: BookedInterval) -> None:
        """From now on this one runs; also where the process after this one will look."""
        self.interval = self.control.interval = interval

    def descriptors(self, mode: str, rate_hz: int) -> dict[str, int]:
        """All that another process needs to go on, by name."""
        events = {f"cpu{cpu}-{rate_hz}": fd for cpu, fd in self.clock.fds.items()}
        return {f"{mode}{_SUFFIX}": self.loaded.programs[PROGRAM], **self.loaded.maps, **events}

    def close(self) -> None:
        self.clock.stop()
        self.unmap()
        self.loaded.close()

    def unmap(self) -> None:
        """Give back the memory, but not the descriptors."""
        self.ring.close()
        self.control.close()
        if self.unwind is not None:
            self.unwind.close()


def open_running(loaded: LoadedObject, sizes: MapSizes) -> Running:
    """Around a freshly loaded program. Raises MapError; `loaded` is then still the caller's."""
    running = _open(loaded, sizes)
    now = BookedInterval(time.time_ns(), time.monotonic_ns(), dict.fromkeys(COUNTER_NAMES, 0))
    running.begin_interval(now)
    return running


def event_of(name: str) -> tuple[int, int] | None:
    """CPU and rate of an event, from its name among `Running.descriptors`; None: not an event's."""
    found = _EVENT.fullmatch(name)
    return (int(found[1]), int(found[2])) if found else None


class Resumed(NamedTuple):
    mode: str
    rate_hz: int
    running: Running


def resume(descriptors: Mapping[str, int], sizes: MapSizes) -> Resumed | None:
    """What a process before this one was running, from its `descriptors`; None where one is
    missing.

    Raises MapError. The interval goes on that was running there. What that process switched away
    from but did not drain is counted with it. The rows that it unwound by are dropped, since only
    their maker could go on writing them: until they are made again, stacks are walked by frame
    pointers.
    """
    program = next((name for name in descriptors if name.endswith(_SUFFIX)), None)
    if program is None:
        return None
    mode = program.removesuffix(_SUFFIX)
    wanted = MAPS + CORE_MAPS if mode == CORE else MAPS
    if not set(wanted) <= descriptors.keys():
        return None
    events = {name: event for name in descriptors if (event := event_of(name))}
    rates = {rate_hz for _, rate_hz in events.values()}
    if len(rates) != 1:  # none: the process before had paused
        return None
    maps = {name: descriptors[name] for name in wanted}
    running = _open(LoadedObject({PROGRAM: descriptors[program]}, maps), sizes)
    running.clock.adopt({cpu: descriptors[name] for name, (cpu, _) in events.items()})
    running.interval = running.control.interval
    running.first = running.interval.counters
    running.leftover = running.count_maps[running.control.generation + 1 & 1].drain()
    if running.unwind is not None:
        running.unwind.clear()
    if running.python is not None:
        running.python.clear()
    return Resumed(mode, rates.pop(), running)


def _open(loaded: LoadedObject, sizes: MapSizes) -> Running:
    maps = loaded.maps
    key_bytes = ctypes.sizeof(SampleKeyC)
    return Running(
        loaded,
        CpuClock(loaded.programs[PROGRAM]),
        (
            CountMap(maps[EVEN], key_bytes, sizes.count_entries),
            CountMap(maps[ODD], key_bytes, sizes.count_entries),
        ),
        PerCpuCounters(maps[COUNTERS], COUNTER_NAMES),
        Control(maps[CONTROL]),
        RingBuffer(maps[STACKS], sizes.ring_bytes),
        BookedInterval(0, 0, {}),
        dict.fromkeys(COUNTER_NAMES, 0),
        (b"", b""),
        UnwindMaps(maps[PROCESSES], maps[MAPPINGS], maps[ROWS]) if PROCESSES in maps else None,
        PythonMaps(maps[PYTHON], maps[LAYOUTS], maps[NAMES]) if PYTHON in maps else None,
    )
