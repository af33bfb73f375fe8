"""What the kernel program unwinds by: processes, their mappings, and the rows of modules.

Rows and mappings lie in shards, arrays that are made when they are first needed, so that the kernel
memory grows with what the host runs. A shard is written through a memory mapping that exists for
the time of writing only: neither a system call an entry, nor resident memory that stays.
"""

import ctypes
import errno
import mmap
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

from node_agent.kernel.errors import MapError
from node_agent.kernel.libbpf import library
from node_agent.kernel.maps import accounted_bytes
from node_agent.kernel.program import create_array
from node_agent.kernel.structs import (
    MAPPINGS_PER_SHARD,
    MAX_MAPPING_SHARDS,
    MAX_ROW_SHARDS,
    ROW_CELL_BYTES,
    ROW_CELLS_PER_SHARD,
    UNWIND_MAPPING,
    UNWIND_PROCESS,
)

_REMEDY = "Start the agent again; `flamefleet-agent check` says what this host lacks."


class ProcessRecord(NamedTuple):
    """struct unwind_process of bpf/events.h, but for its version: the mappings of one process."""

    start_ns: int
    exec_id: int
    first_mapping: int
    mapping_count: int


class Shards:
    """An array of `max_shards` arrays, each of `per_shard` entries of `entry_bytes`, addressed as
    one long array. What has not been written yet is absent, not zero. With `is_one_value` a shard
    is a map of one value, which holds its entries."""

    def __init__(
        self,
        fd: int,
        name: str,
        max_shards: int,
        per_shard: int,
        entry_bytes: int,
        is_one_value: bool = False,
    ) -> None:
        self._fd = fd
        self._name = name
        self._max_shards = max_shards
        self._per_shard = per_shard
        self._entry_bytes = entry_bytes
        self._values = 1 if is_one_value else per_shard  # of a shard
        self._shards: dict[int, int] = {}  # number -> descriptor
        self._shard_bytes = 0  # kernel memory of one, known when there is one
        # Milliseconds: a later process, which finds what the kernel remembers, begins beyond.
        self._next_version = time.monotonic_ns() // 1_000_000
        self._versions: dict[int, int] = {}
        self._lib = library()

    @property
    def capacity(self) -> int:
        """Entries that can be written at most."""
        return self._max_shards * self._per_shard

    def write(self, first: int, entries: bytes | bytearray | memoryview) -> None:
        """Write packed entries from number `first` on; makes the shards that are missing.

        The programs may see entries half written: write only where no record leads to. Raises
        MapError, ValueError where they don't fit.
        """
        data = memoryview(entries).cast("B")
        count, rest = divmod(len(data), self._entry_bytes)
        if rest or first < 0 or first + count > self.capacity:
            raise ValueError(f"{len(data)} bytes at {first} do not fit the map {self._name}")
        self._next_version += 1
        self._versions[first] = self._next_version
        for number, start, end, at in self._parts(first, count):
            with self._mapped(number) as page:
                here = memoryview(page)
                part = data[at * self._entry_bytes : (at + end - start) * self._entry_bytes]
                here[start * self._entry_bytes : end * self._entry_bytes] = part
                here.release()

    def version_of(self, first: int) -> int:
        """Which write it was that wrote from number `first` on, 32 bits; 0 if there was none."""
        return self._versions.get(first, 0) & 0xFFFFFFFF

    def read(self, first: int, count: int) -> bytes:
        """`count` packed entries from number `first` on, zeros where nothing was ever written."""
        found = bytearray()
        for number, start, end, _ in self._parts(first, count):
            if number not in self._shards:
                found += bytes((end - start) * self._entry_bytes)
                continue
            with self._mapped(number) as page:
                found += page[start * self._entry_bytes : end * self._entry_bytes]
        return bytes(found)

    def _parts(self, first: int, count: int) -> Iterator[tuple[int, int, int, int]]:
        """(shard, first and end slot in it, how many entries came before)."""
        done = 0
        while done < count:
            number, start = divmod(first + done, self._per_shard)
            end = min(self._per_shard, start + count - done)
            yield number, start, end, done
            done += end - start

    def _mapped(self, number: int) -> mmap.mmap:
        fd = self._shards.get(number)
        if fd is None:
            fd = self._make(number)
        try:
            return mmap.mmap(fd, self._per_shard * self._entry_bytes)
        except OSError as error:
            raise MapError(
                f"Cannot write to the map {self._name}",
                error.strerror or str(error),
                "Free memory.",
            ) from error

    def _make(self, number: int) -> int:
        value_bytes = self._per_shard * self._entry_bytes // self._values
        fd = create_array(self._name, value_bytes, self._values)
        key, value = ctypes.c_uint32(number), ctypes.c_uint32(fd)
        if self._lib.bpf_map_update_elem(self._fd, ctypes.byref(key), ctypes.byref(value), 0):
            code = ctypes.get_errno()
            os.close(fd)
            raise MapError(f"Cannot extend the map {self._name}", os.strerror(code), _REMEDY)
        self._shards[number] = fd
        self._shard_bytes = max(accounted_bytes(fd), self._per_shard * self._entry_bytes)
        return fd

    def drop(self, number: int) -> None:
        """Give a shard's memory back; nothing may lead to it any more. None there: nothing."""
        fd = self._shards.pop(number, None)
        if fd is not None:
            os.close(fd)
            self._empty(number)

    def clear(self) -> None:
        """Drop every shard, those of a process before this one too."""
        for number in range(self._max_shards):
            fd = self._shards.pop(number, None)
            if fd is not None:
                os.close(fd)
            self._empty(number)

    def _empty(self, number: int) -> None:
        key = ctypes.c_uint32(number)
        if self._lib.bpf_map_delete_elem(self._fd, ctypes.byref(key)):
            code = ctypes.get_errno()
            if code != errno.ENOENT:
                raise MapError(f"Cannot empty the map {self._name}", os.strerror(code), _REMEDY)

    def memory_bytes(self) -> int:
        """Kernel memory of the shards."""
        return len(self._shards) * self._shard_bytes

    def close(self) -> None:
        """Close the descriptors; the shards live as long as the map that they are in."""
        while self._shards:
            os.close(self._shards.popitem()[1])


class UnwindMaps:
    """The three maps of bpf/unwind.h. The descriptors stay the caller's, but for the shards'."""

    def __init__(self, processes_fd: int, mappings_fd: int, rows_fd: int) -> None:
        self._processes_fd = processes_fd
        self._lib = library()
        self.mappings = Shards(
            mappings_fd,
            "ff_mappings",
            MAX_MAPPING_SHARDS,
            MAPPINGS_PER_SHARD,
            UNWIND_MAPPING.size,
        )
        self.rows = Shards(
            rows_fd, "ff_rows", MAX_ROW_SHARDS, ROW_CELLS_PER_SHARD, ROW_CELL_BYTES, True
        )

    def put_process(self, tgid: int, record: ProcessRecord) -> bool:
        """Make a process known, or change its record. False when the map is full.

        Its mappings and their rows have to be written before: the kernel program remembers the
        rules of addresses for as long as the same list of mappings is in use, from one `write` of
        it to the next. Raises MapError.
        """
        key = ctypes.c_uint32(tgid)
        version = self.mappings.version_of(record.first_mapping)
        packed = UNWIND_PROCESS.pack(*record, version)
        value = ctypes.create_string_buffer(packed, len(packed))
        if not self._lib.bpf_map_update_elem(self._processes_fd, ctypes.byref(key), value, 0):
            return True
        code = ctypes.get_errno()
        if code == errno.E2BIG:
            return False
        raise MapError("Cannot write to the map ff_processes", os.strerror(code), _REMEDY)

    def drop_process(self, tgid: int) -> None:
        """Forget a process; its mappings and rows may be used anew once `wait_for_programs` of
        node_agent/kernel/maps.py has returned. Raises MapError."""
        key = ctypes.c_uint32(tgid)
        if self._lib.bpf_map_delete_elem(self._processes_fd, ctypes.byref(key)):
            code = ctypes.get_errno()
            if code != errno.ENOENT:
                raise MapError("Cannot write to the map ff_processes", os.strerror(code), _REMEDY)

    def process(self, tgid: int) -> ProcessRecord | None:
        """The record of a process, None where it is not known."""
        key = ctypes.c_uint32(tgid)
        value = ctypes.create_string_buffer(UNWIND_PROCESS.size)
        if self._lib.bpf_map_lookup_elem(self._processes_fd, ctypes.byref(key), value):
            return None
        return ProcessRecord(*UNWIND_PROCESS.unpack(value.raw)[:-1])

    def tgids(self) -> list[int]:
        """The processes that are known."""
        found: list[int] = []
        key, following = None, ctypes.c_uint32()
        while not self._lib.bpf_map_get_next_key(self._processes_fd, key, ctypes.byref(following)):
            found.append(following.value)
            key = ctypes.byref(ctypes.c_uint32(following.value))
        return found

    def clear(self) -> None:
        """Forget everything: what an earlier process wrote can't be read back by this one."""
        for tgid in self.tgids():
            self.drop_process(tgid)
        self.mappings.clear()
        self.rows.clear()

    def memory_bytes(self) -> int:
        """Kernel memory of the shards; the three maps themselves are among the collector's."""
        return self.mappings.memory_bytes() + self.rows.memory_bytes()

    def close(self) -> None:
        self.mappings.close()
        self.rows.close()
