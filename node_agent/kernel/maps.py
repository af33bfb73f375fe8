"""Maps by descriptor: drain counts, add up counters, hold the control page, tell the size."""

import ctypes
import errno
import mmap
import os
import struct
import time
from pathlib import Path
from typing import NamedTuple

from node_agent.kernel.cpus import possible_cpus
from node_agent.kernel.errors import MapError
from node_agent.kernel.libbpf import library
from node_agent.kernel.structs import COUNTER_NAMES, ControlC, CountersC

_BATCH = 1024
_MEMBARRIER = {"x86_64": 324, "aarch64": 283}
_MEMBARRIER_CMD_GLOBAL = 1
_GRACE_S = 0.02


class CountMap:
    """A hash map of u64 counts that is emptied as a whole."""

    def __init__(self, fd: int, key_bytes: int, max_entries: int) -> None:
        self._fd = fd
        self._key_bytes = key_bytes
        self._batch = min(_BATCH, max_entries)
        self._lib = library()

    def drain(self) -> tuple[bytes, bytes]:
        """All keys and all values (u64), packed and in the same order; the map is empty then.

        Nothing may write to the map meanwhile. Raises MapError.
        """
        keys = ctypes.create_string_buffer(self._batch * self._key_bytes)
        values = ctypes.create_string_buffer(self._batch * 8)
        count = ctypes.c_uint32()
        cursor = ctypes.create_string_buffer(8)
        all_keys, all_values = bytearray(), bytearray()
        first = True
        while True:
            count.value = self._batch
            result = self._lib.bpf_map_lookup_and_delete_batch(
                self._fd,
                None if first else cursor,
                cursor,
                keys,
                values,
                ctypes.byref(count),
                None,
            )
            code = -result
            if code not in (0, errno.ENOENT):  # ENOENT: that was the last batch
                raise MapError(
                    "Cannot drain the counts", os.strerror(code), "Linux 5.8 or newer is needed."
                )
            all_keys += memoryview(keys)[: count.value * self._key_bytes]
            all_values += memoryview(values)[: count.value * 8]
            if code:
                return bytes(all_keys), bytes(all_values)
            first = False


class PerCpuCounters:
    """A one-entry per-CPU array of u64 fields."""

    def __init__(self, fd: int, names: tuple[str, ...]) -> None:
        self._fd = fd
        self._names = names
        self._lib = library()
        self._key = ctypes.c_uint32(0)
        self._layout = struct.Struct(f"={len(names)}Q")
        self._buffer = ctypes.create_string_buffer(self._layout.size * len(possible_cpus()))

    def read(self) -> dict[str, int]:
        """Each field, added up over all CPUs. Raises MapError."""
        if self._lib.bpf_map_lookup_elem(self._fd, ctypes.byref(self._key), self._buffer):
            raise MapError(
                "Cannot read the counters",
                os.strerror(ctypes.get_errno()),
                "Start the agent again.",
            )
        rows = self._layout.iter_unpack(self._buffer)
        return dict(zip(self._names, map(sum, zip(*rows, strict=True)), strict=True))


class BookedInterval(NamedTuple):
    """When an interval began, and what the counters showed then."""

    start_ns: int  # Unix time
    start_monotonic_ns: int
    counters: dict[str, int]


class Control:
    """The page that the program reads with every sample; writing to it costs no system call."""

    def __init__(self, fd: int) -> None:
        try:
            self._page = mmap.mmap(fd, mmap.PAGESIZE)
        except OSError as error:
            raise MapError(
                "Cannot map the control page", error.strerror or str(error), "Free memory."
            ) from error
        self._struct: ControlC | None = ControlC.from_buffer(self._page)

    def _held(self) -> ControlC:
        if self._struct is None:
            raise MapError("The control page is closed", "the collector stopped", "Start it again.")
        return self._struct

    def beat(self) -> None:
        """Tell the programs that user space is alive."""
        self._held().beat_ns = time.monotonic_ns()

    @property
    def generation(self) -> int:
        return int(self._held().generation)

    @property
    def given_up(self) -> int:
        """GIVEN_UP_* of what the programs leave out."""
        return int(self._held().given_up)

    @given_up.setter
    def given_up(self, flags: int) -> None:
        self._held().given_up = flags

    def next_generation(self) -> None:
        """Switch to the other count map and wait until no program uses the old one."""
        held = self._held()
        held.generation = (held.generation + 1) & 0xFFFFFFFF
        wait_for_programs()

    @property
    def interval(self) -> BookedInterval:
        """The running interval, as whoever began it wrote it down."""
        held = self._held()
        booked = {name: getattr(held.booked, name) for name in COUNTER_NAMES}
        return BookedInterval(held.interval_start_ns, held.interval_start_monotonic_ns, booked)

    @interval.setter
    def interval(self, interval: BookedInterval) -> None:
        held = self._held()
        held.interval_start_ns = interval.start_ns
        held.interval_start_monotonic_ns = interval.start_monotonic_ns
        held.booked = CountersC(**interval.counters)

    @property
    def beat_ns(self) -> int:
        """CLOCK_MONOTONIC of the last sign of life."""
        return int(self._held().beat_ns)

    def close(self) -> None:
        self._struct = None  # before the page: ctypes holds a view of it
        self._page.close()


def wait_for_programs() -> None:
    """Return when every BPF program that ran at the time of the call has ended.

    Programs run inside RCU read sections, and the global membarrier waits for a grace period of
    RCU, asleep. Where it is denied or unsupported (nohz_full), twenty milliseconds have to do.
    """
    number = _MEMBARRIER.get(os.uname().machine)
    if number is None or ctypes.CDLL(None).syscall(number, _MEMBARRIER_CMD_GLOBAL, 0, 0) != 0:
        time.sleep(_GRACE_S)


def accounted_bytes(fd: int) -> int:
    """What the kernel says this map takes, in bytes; 0 where it doesn't say. It does not change:
    all maps of bpf/ have their memory from the start."""
    try:
        text = Path(f"/proc/self/fdinfo/{fd}").read_text()
    except OSError:
        return 0
    for line in text.split("\n"):
        if line.startswith("memlock:"):
            return int(line.split()[1])
    return 0
