"""Blobs of `node_prof.data`: sections of stack ids and counts, one a (series, sampling rate).

Format, inside one zstd frame that declares its size, all integers little-endian:
u32 sections; for each u32 series id, u32 rate in millihertz, u32 bytes of its body; then the
bodies. A body is 2n varints: n deltas of the sorted, distinct stack ids (the first is the id
itself), then the n counts. Dense ids make most deltas one or two bytes: 1.4 bytes a row.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import zstandard
from numpy.typing import NDArray

from aggregator.profiles.errors import BlobError
from aggregator.profiles.varint import decode_varints, encode_varints

MAX_DECODED_BYTES = 256 << 20
_LEVEL = 3
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
    raw = _decompress(data)
    header, start = _decode_header(raw)
    values, ends = decode_varints(np.frombuffer(raw, np.uint8, offset=start))
    edges = np.zeros(len(header) + 1, np.int64)
    np.cumsum(header[:, 2], out=edges[1:])
    # Where each body ends, as a number of varints; a body must end where a varint does.
    rows = np.searchsorted(ends, edges, side="right")
    if not np.array_equal(np.concatenate(([0], ends))[rows], edges):
        raise BlobError("the blob is corrupt: a section ends inside a varint")
    sections = []
    for index, (series_id, rate, _) in enumerate(header.tolist()):
        body = values[rows[index] : rows[index + 1]]
        sections.append(_decode_body(series_id, rate, body))
    return sections


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
    if float(counts.sum(dtype=np.float64)) >= 2.0**63:
        raise BlobError(f"the counts of series {first.series_id} add up to more than 63 bits")
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    starts = np.flatnonzero(np.diff(ids, prepend=ids[0] - 1))
    totals = np.add.reduceat(counts[order], starts)
    return Section(first.series_id, first.rate_millihertz, ids[starts], totals)


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


def _decompress(data: bytes) -> bytes:
    try:
        declared = zstandard.frame_content_size(data)
        if not 0 <= declared <= MAX_DECODED_BYTES:
            raise BlobError(
                f"the blob declares {declared} bytes decoded; 0 to {MAX_DECODED_BYTES} are allowed"
            )
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=MAX_DECODED_BYTES)
    except zstandard.ZstdError as error:
        raise BlobError(f"the blob is truncated or not zstd: {error}") from error


def _decode_header(raw: bytes) -> tuple[NDArray[np.int64], int]:
    """Rows of (series id, rate, body length), and where the bodies start."""
    if len(raw) < 4:
        raise BlobError("the blob is corrupt: it has no header")
    sections = int.from_bytes(raw[:4], "little")
    start = 4 + 12 * sections
    if start > len(raw):
        raise BlobError(f"the blob is corrupt: it has no room for its {sections} sections")
    header = np.frombuffer(raw, "<u4", 3 * sections, offset=4).astype(np.int64).reshape(-1, 3)
    if int(header[:, 2].sum()) != len(raw) - start:
        raise BlobError("the blob is corrupt: the lengths of its sections do not add up")
    keys = (header[:, 0] << 32) | header[:, 1]
    if np.any(header[:, 0] >= 1 << 31) or np.any(np.diff(keys) <= 0) or np.any(header[:, 1] < 1):
        raise BlobError("the blob is corrupt: its sections are not in order of (series, rate)")
    return header, start


def _decode_body(series_id: int, rate_millihertz: int, body: NDArray[np.int64]) -> Section:
    rows, odd = divmod(len(body), 2)
    if odd:
        raise BlobError("the blob is corrupt: a section has more ids than counts")
    ids = np.cumsum(body[:rows])  # beyond 63 bits it wraps to negative, which the next line sees
    counts = body[rows:]
    if rows and (np.any(ids[1:] <= ids[:-1]) or int(counts.min()) < 1):
        raise BlobError("the blob is corrupt: ids out of order or a count of 0")
    return Section(series_id, rate_millihertz, ids, counts)
