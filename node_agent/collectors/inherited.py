"""What programs that were made otherwise (an upgrade, other settings) had counted when this process
took over: their maps cannot be gone on with, but they can be read."""

import ctypes
import os
import time
from _blake2 import blake2b
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from node_agent.collectors.running import CONTROL, EVEN, ODD, STACKS, Running, event_of
from node_agent.collectors.stacks import Decoder, RawStack, SampleKey
from node_agent.kernel.errors import KernelError
from node_agent.kernel.maps import BookedInterval, Control, CountMap, wait_for_programs
from node_agent.kernel.perf_event import disable
from node_agent.kernel.ring_buffer import RingBuffer
from node_agent.kernel.structs import ControlC, SampleKeyC, StackEventC

MAX_ABSENCE_S = 3600.0  # what was sampled before such a gap is of no interval that anyone wants
_READ = (SampleKeyC, StackEventC, ControlC)


class Inherited(NamedTuple):
    """Counts and stacks of the interval that had begun as `interval` says."""

    counts: dict[SampleKey, int]
    stacks: list[RawStack]
    interval: BookedInterval
    rate_hz: int  # at which they were sampled; 0: it can't be told


def shape() -> str:
    """What has to be the same for `read_inherited` to read what another version counted."""
    fields = [
        (name, getattr(struct, name).offset, getattr(struct, name).size)
        for struct in _READ
        for name, *_ in struct._fields_
    ]
    return blake2b(repr(fields).encode(), digest_size=4).hexdigest()


def read_inherited(descriptors: Mapping[str, int], decoder: Decoder) -> Inherited | None:
    """Stop those programs and empty their maps; None where they can't be read."""
    if not {EVEN, ODD, STACKS, CONTROL} <= descriptors.keys():
        return None
    events = {name: event for name in descriptors if (event := event_of(name))}
    try:
        for name in events:
            disable(descriptors[name])
        wait_for_programs()
        ring = RingBuffer(descriptors[STACKS], _max_entries(descriptors[STACKS]))
        stacks = list(decoder.stacks(ring.read()))
        ring.close()
        control = Control(descriptors[CONTROL])
        interval = control.interval
        control.close()
        counts: dict[SampleKey, int] = {}
        for name in (EVEN, ODD):
            fd = descriptors[name]
            drained = CountMap(fd, ctypes.sizeof(SampleKeyC), _max_entries(fd)).drain()
            for key, count in decoder.counts(*drained).items():
                counts[key] = counts.get(key, 0) + count
    except (KernelError, OSError, ValueError):
        return None
    rates = {rate_hz for _, rate_hz in events.values()}
    return Inherited(counts, stacks, interval, rates.pop() if len(rates) == 1 else 0)


class Inheritance:
    """What one start found, until it is counted."""

    def __init__(self, decoder: Decoder) -> None:
        self.age_s: float | None = None  # of the interval that was found
        self.is_unreadable = False  # there was one that could not be read
        self._decoder = decoder
        self._found: Inherited | None = None

    def find(self, others: Mapping[str, Mapping[str, int]]) -> None:
        """Read what `others`, descriptors by layout and name, lead to."""
        for layout, descriptors in others.items():
            found = None
            if layout.rpartition("-")[2] == shape():
                found = read_inherited(descriptors, self._decoder)
            if found is None:
                self.is_unreadable = True
                continue
            age_s = (time.monotonic_ns() - found.interval.start_monotonic_ns) / 1e9
            if age_s <= MAX_ABSENCE_S:
                self._found, self.age_s = found, age_s

    def begin(self, running: Running, rate_hz: int) -> None:
        """Let the first interval of `running` be the one that was found."""
        if self._found is not None and self._found.rate_hz == rate_hz:
            running.interval = self._found.interval._replace(counters=running.interval.counters)

    def stacks(self, number: int) -> list[RawStack]:
        """The stacks that were found, once, as of interval `number`."""
        if self._found is None or not self._found.stacks:
            return []
        stacks = [stack._replace(interval=number) for stack in self._found.stacks]
        self._found.stacks.clear()
        return stacks

    def add_to(self, counts: dict[SampleKey, int], rate_hz: int) -> dict[str, int]:
        """Add the counts that were found, once; what can't be added is returned by reason."""
        found, self._found = self._found, None
        if found is None:
            return {}
        if found.rate_hz != rate_hz:  # an interval has one rate
            return {"rate_change": sum(found.counts.values())}
        for key, count in found.counts.items():
            counts[key] = counts.get(key, 0) + count
        return {}


def _max_entries(fd: int) -> int:
    lines = Path(f"/proc/{os.getpid()}/fdinfo/{fd}").read_text().split("\n")
    return next(int(line.split()[1]) for line in lines if line.startswith("max_entries:"))
