"""The ring buffer's reader, on a file laid out as the kernel lays out its memory.

The real one is in tests/kernel; here are the states that it shows only now and then: a record
still being written, a discarded one, and the wrap at the end.
"""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from node_agent.kernel.ring_buffer import RingBuffer

PAGE = mmap.PAGESIZE
SIZE = PAGE
BUSY, DISCARDED = 1 << 31, 1 << 30


class Ring:
    """What the kernel does: consumer page, producer page, then the data, visible twice."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("w+b")
        self.file.truncate(2 * PAGE + 2 * SIZE)
        self.memory = mmap.mmap(self.file.fileno(), 0)
        self.position = 0

    def write(self, data: bytes, flags: int = 0) -> int:
        start = self.position
        record = (len(data) | flags).to_bytes(4, "little") + bytes(4) + data
        for offset, byte in enumerate(record):
            place = 2 * PAGE + (start + offset) % SIZE
            self.memory[place] = self.memory[place + SIZE] = byte
        self.position += (len(record) + 7) // 8 * 8
        self.memory[PAGE : PAGE + 8] = self.position.to_bytes(8, "little")
        return start

    def commit(self, start: int, length: int) -> None:
        for place in (2 * PAGE + start % SIZE, 2 * PAGE + start % SIZE + SIZE):
            self.memory[place : place + 4] = length.to_bytes(4, "little")

    @property
    def consumed(self) -> int:
        return int.from_bytes(self.memory[:8], "little")


@pytest.fixture
def ring(tmp_path: Path) -> Iterator[Ring]:
    ring = Ring(tmp_path / "ring")
    yield ring
    ring.memory.close()
    ring.file.close()


@pytest.fixture
def reader(ring: Ring) -> Iterator[RingBuffer]:
    fd = os.dup(ring.file.fileno())
    reader = RingBuffer(fd, SIZE)
    yield reader
    reader.close()
    os.close(fd)


def read(reader: RingBuffer) -> list[bytes]:
    return [bytes(record) for record in reader.read()]


def test_records_come_once_and_in_order(ring: Ring, reader: RingBuffer) -> None:
    ring.write(b"one")
    ring.write(b"two and more")

    assert read(reader) == [b"one", b"two and more"]
    assert read(reader) == []
    assert ring.consumed == ring.position


def test_a_record_still_being_written_waits_with_all_after_it(
    ring: Ring, reader: RingBuffer
) -> None:
    ring.write(b"done")
    unfinished = ring.write(b"later", BUSY)
    ring.write(b"last")

    assert read(reader) == [b"done"]
    ring.commit(unfinished, 5)
    assert read(reader) == [b"later", b"last"]


def test_discarded_records_are_passed_over(ring: Ring, reader: RingBuffer) -> None:
    ring.write(b"given up", DISCARDED)
    ring.write(b"kept")

    assert read(reader) == [b"kept"]
    assert ring.consumed == ring.position


def test_records_over_the_end_are_whole(ring: Ring, reader: RingBuffer) -> None:
    for number in range(40):
        data = bytes([number]) * 500  # 512 bytes a record with its head: some lie over the end
        ring.write(data[:300])
        ring.write(data)
        assert read(reader) == [data[:300], data]
    assert ring.position > 4 * SIZE
