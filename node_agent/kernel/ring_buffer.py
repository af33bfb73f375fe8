"""Reader of a BPF ring buffer by mmap, without callbacks and without polling.

The layout is that of kernel/bpf/ringbuf.c: one page with the consumer's position (ours to write),
one page with the producers' position, then the data, mapped twice in a row so that no record is
ever split. A record is a header of 8 bytes (length with two flag bits, page offset) and its data,
rounded up to 8 bytes.
"""

import mmap
from collections.abc import Iterator

from node_agent.kernel.errors import MapError

_BUSY = 1 << 31
_DISCARDED = 1 << 30
_HEADER_BYTES = 8


class RingBuffer:
    """`read` yields what was written since the last call."""

    def __init__(self, fd: int, size_bytes: int) -> None:
        page = mmap.PAGESIZE
        self._mask = size_bytes - 1
        try:
            self._consumer = mmap.mmap(fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
            self._producer = mmap.mmap(
                fd, page + 2 * size_bytes, mmap.MAP_SHARED, mmap.PROT_READ, offset=page
            )
        except OSError as error:
            raise MapError(
                "Cannot map the ring buffer",
                error.strerror or str(error),
                "Lower the rate or free memory.",
            ) from error
        # Views of whole words: each access is one load or store, never byte by byte.
        self._consumer_position = memoryview(self._consumer).cast("Q")
        self._producer_position = memoryview(self._producer).cast("Q")
        self._words = memoryview(self._producer).cast("I")
        self._data = memoryview(self._producer)
        self._data_start = page

    def read(self) -> Iterator[memoryview]:
        """The records in order, each valid until the next one is asked for."""
        position = self._consumer_position[0]
        end = self._producer_position[0]
        while position < end:
            start = self._data_start + (position & self._mask)
            header = self._words[start // 4]
            if header & _BUSY:  # still being written: the rest comes with the next call
                return
            length = header & ~(_BUSY | _DISCARDED)
            if not header & _DISCARDED:
                data = start + _HEADER_BYTES
                yield self._data[data : data + length]
            position += (length + _HEADER_BYTES + 7) & ~7
            self._consumer_position[0] = position

    def close(self) -> None:
        for view in (self._consumer_position, self._producer_position, self._words, self._data):
            view.release()
        self._consumer.close()
        self._producer.close()
