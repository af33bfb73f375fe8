"""What the CPU collector hands on, and its decoding from the kernel's records."""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from node_agent.kernel.structs import (
    MAX_PYTHON_DEPTH,
    MAX_STACK_DEPTH,
    PYTHON_END_MASK,
    PYTHON_END_SHIFT,
    SAMPLE_KERNEL_THREAD,
    SAMPLE_KEY,
    STACK_END_MASK,
    STACK_END_SHIFT,
    STACK_EVENT_HEADER,
)

_MAX_NAMES = 4096
# One layout a depth: compiled once, and its tuple needs no slicing.
_ADDRESSES = tuple(
    struct.Struct(f"={depth}Q") for depth in range(max(MAX_STACK_DEPTH, MAX_PYTHON_DEPTH) + 1)
)


class StackEnd(IntEnum):
    """How the user part of a stack ended: enum stack_end of bpf/events.h. The word of each on the
    wire is its name in lower case."""

    NO_USER = 0  # there is none
    COMPLETE = 1
    TRUNCATED = 2
    NO_MAPPING = 3
    NO_ROWS = 4
    NO_ROOM = 5
    UNSUPPORTED_RULE = 6
    READ_FAULT = 7


_ENDS = tuple(StackEnd)


def end_of(flags: int) -> StackEnd:
    """What `SampleKey.flags` say about the end of the user part."""
    return _ENDS[(flags & STACK_END_MASK) >> STACK_END_SHIFT]


class PythonEnd(IntEnum):
    """How the Python part of a stack ended: enum python_end of bpf/events.h."""

    NONE = 0  # no Python program
    COMPLETE = 1
    TRUNCATED = 2  # deeper than MAX_PYTHON_DEPTH
    NO_THREAD_STATE = 3
    READ_FAULT = 4
    OFF = 5


_PYTHON_ENDS = tuple(PythonEnd)


class ProcessKey(NamedTuple):
    """A process for as long as it runs one program: ids are reused, and exec changes mappings."""

    tgid: int  # in the agent's PID namespace
    start_ns: int  # boot time of the group leader's start; /proc/PID/stat has it in clock ticks
    exec_id: int


class SampleKey(NamedTuple):
    """What samples are counted by."""

    stack_key: int
    tgid: int
    start_ns: int
    exec_id: int
    cgroup_id: int
    thread_name: str
    flags: int  # SAMPLE_KERNEL_THREAD, SAMPLE_PYTHON, and how the user part ended: see `end_of`


class RawStack(NamedTuple):
    """A stack at its first sighting in an interval (for each thread name and cgroup). No
    dataclass: thousands are made a minute, and a frozen one takes five times as long to make."""

    stack_key: int  # 64-bit hash over the process and all addresses
    process: ProcessKey
    thread_name: str
    cgroup_id: int
    kernel_ips: tuple[int, ...]  # leaf first, () if the sample was in user mode
    user_ips: tuple[int, ...]  # leaf first, () if the thread has no user memory
    is_kernel_thread: bool
    interval: int = 0  # `Interval.number` of the interval that counts it
    end: StackEnd = StackEnd.NO_USER
    python: tuple[int, ...] = ()  # ids of code objects, leaf first, see bpf/python_events.h
    python_end: PythonEnd = PythonEnd.NONE
    python_names: tuple[bytes, ...] = ()  # of code objects that were not seen before


@dataclass(frozen=True, slots=True)
class Interval:
    """The counts between two calls of `take_interval`."""

    counts: dict[SampleKey, int]
    lost: dict[str, int]  # by reason, only those above 0; `ring_full` is in stacks, not samples
    samples: int  # sum of `counts`
    kernel_ns: int  # the program's own time, all CPUs
    start_ns: int  # Unix time
    duration_ns: int  # monotonic
    skipped: dict[str, int] = field(default_factory=dict)  # left out on purpose, by reason
    interrupts: int = 0  # sampling interrupts, those of idle CPUs included
    python_samples: int = 0  # of Python programs
    python_ns: int = 0  # of `kernel_ns`: reading their frames and names
    number: int = 0


class Totals(NamedTuple):
    """Since `start`, as of the last `take_interval`."""

    samples: int
    interrupts: int
    kernel_ns: int
    python_ns: int = 0  # of kernel_ns


class Decoder:
    """Decodes the kernel's records; remembers thread names, which repeat."""

    def __init__(self) -> None:
        self._names: dict[bytes, str] = {}
        self._python_names: list[bytes] = []  # the stack that they belong to has not come yet

    def _name(self, raw: bytes) -> str:
        name = self._names.get(raw)
        if name is None:
            if len(self._names) >= _MAX_NAMES:
                self._names.clear()
            name = raw.partition(b"\0")[0].decode("utf-8", "replace")
            self._names[raw] = name
        return name

    def counts(self, keys: bytes, values: bytes) -> dict[SampleKey, int]:
        """Packed keys and u64 counts of a drained map."""
        numbers = memoryview(values).cast("Q")
        name = self._name
        return {
            SampleKey(stack_key, tgid, start_ns, exec_id, cgroup_id, name(comm), flags): count
            for (stack_key, start_ns, cgroup_id, tgid, exec_id, flags, comm), count in zip(
                SAMPLE_KEY.iter_unpack(keys), numbers, strict=True
            )
        }

    def stacks(
        self, records: Iterable[memoryview], last: int | None = None, first: int = 0
    ) -> Iterator[RawStack]:
        """Stack events as they come from the ring buffer, those of the intervals `first` to `last`;
        names that came with others go with the next of these. One by one: a full ring buffer would
        be 10 MB of them. Each is given out when the next record is asked for, so that one that this
        process cannot stand has left the buffer, and does not meet the process after it too."""
        stack: RawStack | None = None
        header_bytes = STACK_EVENT_HEADER.size
        names = self._python_names
        for record in records:
            (
                stack_key,
                start_ns,
                cgroup_id,
                tgid,
                exec_id,
                flags,
                comm,
                generation,
                kernel_depth,
                user_depth,
                python_depth,
            ) = STACK_EVENT_HEADER.unpack_from(record)
            if stack_key == 0:  # a struct python_name: it belongs to a stack behind it
                names.append(bytes(record))
                continue
            if last is not None and generation > last:
                break  # not taken: the ring buffer gives it out again
            if generation < first:
                continue
            if stack is not None:
                yield stack
            stack = RawStack(
                stack_key,
                ProcessKey(tgid, start_ns, exec_id),
                self._name(comm),
                cgroup_id,
                _ADDRESSES[kernel_depth].unpack_from(record, header_bytes),
                _ADDRESSES[user_depth].unpack_from(record, header_bytes + 8 * kernel_depth),
                bool(flags & SAMPLE_KERNEL_THREAD),
                generation,
                _ENDS[(flags & STACK_END_MASK) >> STACK_END_SHIFT],
                _ADDRESSES[python_depth].unpack_from(
                    record, header_bytes + 8 * (kernel_depth + user_depth)
                ),
                _PYTHON_ENDS[(flags & PYTHON_END_MASK) >> PYTHON_END_SHIFT],
                tuple(names),
            )
            names.clear()
        if stack is not None:
            yield stack
