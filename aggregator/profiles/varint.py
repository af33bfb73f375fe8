"""Unsigned LEB128 varints over whole numpy columns, for values 0 .. 2**63 - 1.

Format: seven bits a byte, low bits first, the top bit set on every byte but a value's last
(DWARF 5, section 7.6). A non-negative int64 takes 1 to 9 bytes.
"""

import numpy as np
from numpy.typing import NDArray

from aggregator.profiles.errors import BlobError

_MAX_BYTES = 9


def encode_varints(values: NDArray[np.int64]) -> bytes:
    """The varints of `values` (n int64, none negative), one after another.

    Raises BlobError for a negative value.
    """
    if not len(values):
        return b""
    if int(values.min()) < 0:
        raise BlobError("a varint cannot hold a negative value: ids and counts start at 0")
    if int(values.max()) < 1 << 7:
        return values.astype(np.uint8).tobytes()
    sizes = np.ones(len(values), np.int64)
    for bits in range(7, 63, 7):
        sizes += values >= (1 << bits)
    width = int(sizes.max())
    column = np.arange(width)
    parts = ((values[:, None] >> (column * 7)) & 0x7F).astype(np.uint8)
    parts |= np.where(column < (sizes - 1)[:, None], 0x80, 0).astype(np.uint8)
    return parts[column < sizes[:, None]].tobytes()


def decode_varints(data: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The values in `data` and, for each, the offset just after its last byte.

    Raises BlobError when the last varint is cut off or one is longer than 63 bits.
    """
    if not len(data):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    last = data < 0x80
    if not last[-1]:
        raise BlobError("the blob is corrupt: its last varint is cut off")
    ends = np.flatnonzero(last)
    starts = np.empty_like(ends)
    starts[0] = 0
    starts[1:] = ends[:-1] + 1
    sizes = ends - starts + 1
    longest = int(sizes.max())
    if longest > _MAX_BYTES:
        raise BlobError(f"the blob is corrupt: a varint of {longest} bytes, at most 9 are allowed")
    values = (data[starts] & 0x7F).astype(np.int64)
    more = np.flatnonzero(sizes > 1)
    for byte in range(1, longest):
        more = more[sizes[more] > byte]
        values[more] |= (data[starts[more] + byte] & 0x7F).astype(np.int64) << (7 * byte)
    return values, ends + 1
