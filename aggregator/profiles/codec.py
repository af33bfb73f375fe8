"""Blobs of `node_prof.data`: sections of stack ids and counts, one a (series, sampling rate).

Format, inside one zstd frame that declares its size, all integers little-endian:
u32 sections; for each u32 series id, u32 rate in millihertz, u32 bytes of its body; then the
bodies. A body is 2n varints: n deltas of the sorted, distinct stack ids (the first is the id
itself), then the n counts. Dense ids make most deltas one or two bytes: 1.4 bytes a row.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import zstandard
from numpy.typing import NDArray

from aggregator.profiles.errors import BlobError
from aggregator.profiles.varint import decode_varints, encode_varints

MAX_DECODED_BYTES = 256 << 20
_LEVEL = 3
_TOGETHER_BYTES = 4 << 20
_DENSE = 8  # sorting costs more than summing over so many places a row
_U32_LIMIT = 1 << 32


@dataclass(frozen=True, eq=False)
class Section:
    """Samples of one series at one rate: `counts[i]` samples of the stack `ids[i]`.

    Both are int64 of one length; ids are sorted and distinct, counts at least 1. A row weighs
    count x 10**12 / `rate_millihertz` nanoseconds of CPU.
    """

    series_id: int
    rate_millihertz: int
    ids: NDArray[np.int64]
    counts: NDArray[np.int64]


def encode_sections(sections: Sequence[Section]) -> bytes:
    """The blob of `sections`, which are stored in order of (series, rate).

    Raises BlobError when a (series, rate) comes twice, or a section breaks its own rules.
    """
    ordered = sorted(sections, key=_key)
    keys = [_key(section) for section in ordered]
    if len(set(keys)) < len(keys):
        raise BlobError("a (series, rate) comes twice: merge the sections first")
    bodies = [_encode_body(section) for section in ordered]
    header = [(*key, len(body)) for key, body in zip(keys, bodies, strict=True)]
    if any(not 0 <= value < _U32_LIMIT for row in header for value in row):
        raise BlobError("series id, rate and body length must be 0 .. 2**32 - 1")
    head = np.array([len(ordered), *(value for row in header for value in row)], "<u4").tobytes()
    raw = head + b"".join(bodies)
    if len(raw) > MAX_DECODED_BYTES:
        raise BlobError(f"a blob of {len(raw)} bytes; at most {MAX_DECODED_BYTES} are allowed")
    return zstandard.ZstdCompressor(level=_LEVEL).compress(raw)


def decode_sections(data: bytes) -> list[Section]:
    """The sections of a blob, in order of (series, rate).

    Raises BlobError for anything that `encode_sections` could not have written.
    """
    return _decode_together([decompress(zstandard.ZstdDecompressor(), data)])[0]


def decode_blobs(blobs: Iterable[bytes]) -> Iterator[list[Section] | None]:
    """The sections of each blob; None for one that is damaged.

    Small blobs are decoded together, because numpy's calls cost more than their rows.
    """
    decompressor = zstandard.ZstdDecompressor()
    waiting: list[bytes | None] = []
    size = 0
    for data in blobs:
        try:
            raw = decompress(decompressor, data)
        except BlobError:
            waiting.append(None)
            continue
        waiting.append(raw)
        size += len(raw)
        if size > _TOGETHER_BYTES:
            yield from _decode_each(waiting)
            waiting, size = [], 0
    yield from _decode_each(waiting)


def merge_sections(sections: Iterable[Section]) -> list[Section]:
    """One section a (series, rate), counts of the same stack added, in order of (series, rate).

    Sections without rows disappear. Raises BlobError when a sum would leave int64.
    """
    groups: dict[tuple[int, int], list[Section]] = {}
    for section in sections:
        if len(section.ids):
            groups.setdefault(_key(section), []).append(section)
    return [_merge_group(groups[key]) for key in sorted(groups)]


def _key(section: Section) -> tuple[int, int]:
    return section.series_id, section.rate_millihertz


def _merge_group(group: list[Section]) -> Section:
    first = group[0]
    if len(group) == 1:
        return first
    ids = np.concatenate([section.ids for section in group])
    counts = np.concatenate([section.counts for section in group])
    total = float(counts.sum(dtype=np.float64))
    if total >= 2.0**63:
        raise BlobError(f"the counts of series {first.series_id} add up to more than 63 bits")
    least, most = int(ids.min()), int(ids.max())
    if most - least < _DENSE * len(ids) and total < 2.0**53:  # doubles are exact up to there
        sums = np.bincount(ids - least, weights=counts)
        distinct = np.flatnonzero(sums)
        totals = sums[distinct].astype(np.int64)
        distinct += least
    else:
        order = np.argsort(ids, kind="stable")
        ids = ids[order]
        starts = np.flatnonzero(np.diff(ids, prepend=ids[0] - 1))
        distinct, totals = ids[starts], np.add.reduceat(counts[order], starts)
    return Section(first.series_id, first.rate_millihertz, distinct, totals)


def _encode_body(section: Section) -> bytes:
    ids, counts = section.ids, section.counts
    if ids.dtype != np.int64 or counts.dtype != np.int64 or ids.shape != counts.shape:
        raise BlobError("ids and counts must be int64 columns of one length")
    if section.rate_millihertz < 1:
        raise BlobError(f"rate_millihertz must be 1 or more, it is {section.rate_millihertz}")
    if len(ids) and (int(ids[0]) < 0 or np.any(ids[1:] <= ids[:-1])):
        raise BlobError("stack ids must be sorted, distinct and not negative")
    if len(ids) and int(counts.min()) < 1:
        raise BlobError("counts must be 1 or more: leave out stacks that were not seen")
    return encode_varints(np.diff(ids, prepend=np.int64(0))) + encode_varints(counts)


def decompress(decompressor: zstandard.ZstdDecompressor, data: bytes) -> bytes:
    """The content of a blob, before its sections. Raises BlobError."""
    try:
        declared = zstandard.frame_content_size(data)
        if not 0 <= declared <= MAX_DECODED_BYTES:
            raise BlobError(
                f"the blob declares {declared} bytes decoded; 0 to {MAX_DECODED_BYTES} are allowed"
            )
        return decompressor.decompress(data, max_output_size=MAX_DECODED_BYTES)
    except zstandard.ZstdError as error:
        raise BlobError(f"the blob is truncated or not zstd: {error}") from error


def _decode_each(blobs: list[bytes | None]) -> Iterator[list[Section] | None]:
    whole = [raw for raw in blobs if raw is not None]
    try:
        decoded: Iterator[list[Section] | None] = iter(_decode_together(whole))
    except BlobError:  # one of them is damaged: find out which
        decoded = map(_decode_or_none, whole)
    for raw in blobs:
        yield None if raw is None else next(decoded)


def _decode_or_none(raw: bytes) -> list[Section] | None:
    try:
        return _decode_together([raw])[0]
    except BlobError:
        return None


def _decode_together(blobs: list[bytes]) -> list[list[Section]]:
    """The sections of decompressed blobs, whose bodies are decoded as one column."""
    counts = [count_sections(raw) for raw in blobs]
    starts = [4 + 12 * count for count in counts]
    heads = [raw[4:start] for raw, start in zip(blobs, starts, strict=True)]
    header = np.frombuffer(b"".join(heads), "<u4").astype(np.int64).reshape(-1, 3)
    blob_edges = edges(np.array(counts, np.int64))
    check_header(header, blob_edges)
    bodies = [raw[start:] for raw, start in zip(blobs, starts, strict=True)]
    section_edges = edges(header[:, 2])
    body_edges = edges(np.array([len(body) for body in bodies], np.int64))
    if not np.array_equal(section_edges[blob_edges], body_edges):
        raise BlobError("the blob is corrupt: the lengths of its sections do not add up")
    ids, stack_counts, rows = decode_bodies(b"".join(bodies), section_edges)
    cuts = rows.tolist()
    sections = [
        Section(series_id, rate, ids[cuts[i] : cuts[i + 1]], stack_counts[cuts[i] : cuts[i + 1]])
        for i, (series_id, rate, _) in enumerate(header.tolist())
    ]
    return [sections[a:b] for a, b in pairwise(blob_edges.tolist())]


def count_sections(raw: bytes) -> int:
    """How many sections a decompressed blob has. Raises BlobError."""
    if len(raw) < 4:
        raise BlobError("the blob is corrupt: it has no header")
    sections = int.from_bytes(raw[:4], "little")
    if 4 + 12 * sections > len(raw):
        raise BlobError(f"the blob is corrupt: it has no room for its {sections} sections")
    return sections


def check_header(header: NDArray[np.int64], blob_edges: NDArray[np.int64]) -> None:
    """Check the rows (series, rate, length) of blobs; `blob_edges` are between blobs."""
    keys = (header[:, 0] << 32) | header[:, 1]
    rising = np.ones(len(keys) + 1, bool)
    rising[1:-1] = keys[1:] > keys[:-1]
    rising[blob_edges] = True  # order is within a blob
    if not rising.all() or np.any(header[:, 0] >= 1 << 31) or np.any(header[:, 1] < 1):
        raise BlobError("the blob is corrupt: its sections are not in order of (series, rate)")


def decode_bodies(
    bodies: bytes, section_edges: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Ids, counts and the edges of sections in both; `section_edges` are those in `bodies`."""
    values, ends = decode_varints(np.frombuffer(bodies, np.uint8))
    # Where each body ends, as a number of varints; a body must end where a varint does.
    places = np.searchsorted(ends, section_edges, side="right")
    if not np.array_equal(np.concatenate(([0], ends))[places], section_edges):
        raise BlobError("the blob is corrupt: a section ends inside a varint")
    lengths = np.diff(places)
    if np.any(lengths & 1):
        raise BlobError("the blob is corrupt: a section has more ids than counts")
    sizes = lengths >> 1
    rows = edges(sizes)
    in_section = np.arange(len(values)) - np.repeat(places[:-1], lengths)
    is_id = in_section < np.repeat(sizes, lengths)
    deltas, counts = values[is_id], values[~is_id]
    # One sum over everything, less what it was before each section. Beyond 63 bits it wraps,
    # and so does the difference: it is right unless an id itself does not fit, which falls.
    sums = np.concatenate(([0], np.cumsum(deltas)))
    ids = sums[1:] - np.repeat(sums[rows[:-1]], sizes)
    rising = np.ones(len(ids) + 1, bool)
    rising[1:-1] = ids[1:] > ids[:-1]
    rising[rows] = True
    if not rising.all() or np.any(counts < 1):
        raise BlobError("the blob is corrupt: ids out of order or a count of 0")
    return ids, counts, rows


def edges(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where pieces of these lengths begin and end, one after another."""
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))
