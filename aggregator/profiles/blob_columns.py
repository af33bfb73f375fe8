"""Many blobs at once as columns, of those sections alone that a question chooses. Pure.

Heads say which series there are; bodies are decoded only of chosen ones, in parts that bound the
memory it takes. An object a section would cost more than its rows do.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import zstandard
from numpy.typing import NDArray

from aggregator.profiles.codec import check_header, count_sections, decode_bodies, decompress, edges
from aggregator.profiles.errors import BlobError
from aggregator.profiles.grouping import Ints

_PART_BYTES = 256 << 10  # decoded at once; 40 times as much in memory


@dataclass(frozen=True, eq=False)
class Heads:
    """Decompressed blobs. Section i is of the blob `blob[i]`, of `series[i]` at `rate[i]` (mHz);
    its body is `length[i]` bytes from `start[i]` on. Damaged blobs have none."""

    raws: list[bytes]
    damaged: NDArray[np.bool_]
    blob: Ints
    series: Ints
    rate: Ints
    start: Ints
    length: Ints


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of some sections: row i is `counts[i]` samples of the stack `ids[i]`; the rows of
    section `sections[j]` are those from `rows[j]` to `rows[j + 1]`."""

    sections: Ints
    rows: Ints
    ids: Ints
    counts: Ints


def read_heads(blobs: Iterable[bytes]) -> Heads:
    """What stands at the head of each blob. An empty one has no sections."""
    decompressor = zstandard.ZstdDecompressor()
    raws = [_raw(decompressor, blob) for blob in blobs]
    damaged = np.array([raw is None for raw in raws], bool)
    columns = [np.zeros((0, 5), np.int64)]
    for number, raw in enumerate(raws):
        if raw:
            sections = count_sections(raw)
            header = np.frombuffer(raw, "<u4", 3 * sections, 4).reshape(-1, 3)
            rows = np.empty((sections, 5), np.int64)
            rows[:, 0], rows[:, 1:3], rows[:, 4] = number, header[:, :2], header[:, 2]
            columns.append(rows)
    table = np.concatenate(columns)
    kept = [raw or b"" for raw in raws]
    counts = np.bincount(table[:, 0], minlength=len(kept))
    ends = edges(counts)
    before = edges(table[:, 4])
    start = before[:-1] - np.repeat(before[ends[:-1]], counts) + np.repeat(4 + 12 * counts, counts)
    size = np.array([len(raw) for raw in kept], np.int64)
    whole = 4 + 12 * counts + before[ends[1:]] - before[ends[:-1]]
    damaged |= (whole != size) & (size > 0)
    for number in _badly_ordered(table, ends):
        damaged[number] = True
    good = ~damaged[table[:, 0]]
    table, start = table[good], start[good]
    return Heads(kept, damaged, table[:, 0], table[:, 1], table[:, 2], start, table[:, 4])


def read_bodies(heads: Heads, chosen: Ints) -> Iterator[Part]:
    """The rows of the `chosen` sections (indexes, ascending), part by part. Blobs that turn out to
    be damaged are marked so in `heads`, and all of their rows in a part are left out."""
    lengths, blobs = heads.length[chosen], heads.blob[chosen]
    before = np.cumsum(lengths) - lengths
    sizes = before[np.searchsorted(blobs, blobs)] // _PART_BYTES  # a blob is in one part
    for sections in np.split(chosen, np.flatnonzero(np.diff(sizes)) + 1):
        if len(sections):
            yield from _read_part(heads, sections)


def _read_part(heads: Heads, sections: Ints) -> Iterator[Part]:
    try:
        yield _decode(heads, sections)
    except BlobError:
        blobs = np.unique(heads.blob[sections])
        if len(blobs) == 1:
            heads.damaged[blobs[0]] = True
            return
        for blob in blobs:  # one of them is damaged: find out which
            yield from _read_part(heads, sections[heads.blob[sections] == blob])


def _decode(heads: Heads, sections: Ints) -> Part:
    places = zip(
        heads.blob[sections].tolist(),
        heads.start[sections].tolist(),
        (heads.start[sections] + heads.length[sections]).tolist(),
        strict=True,
    )
    bodies = b"".join([heads.raws[blob][start:end] for blob, start, end in places])
    ids, counts, rows = decode_bodies(bodies, edges(heads.length[sections]))
    return Part(sections, rows, ids, counts)


def _raw(decompressor: zstandard.ZstdDecompressor, blob: bytes) -> bytes | None:
    try:
        raw = decompress(decompressor, blob) if blob else b""
        if blob:
            count_sections(raw)
        return raw
    except BlobError:
        return None


def _badly_ordered(table: Ints, blob_edges: Ints) -> list[int]:
    try:
        check_header(table[:, 1:4], blob_edges)
        return []
    except BlobError:
        pass
    bad = []
    for number in np.unique(table[:, 0]).tolist():
        rows = table[table[:, 0] == number]
        try:
            check_header(rows[:, 1:4], np.array([0, len(rows)]))
        except BlobError:
            bad.append(number)
    return bad
