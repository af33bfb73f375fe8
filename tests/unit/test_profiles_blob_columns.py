"""Blobs as columns: the same sums as section by section, damage found blob by blob."""

import numpy as np
import pytest

from aggregator.profiles import blob_columns, column_sums
from aggregator.profiles.blob_columns import read_bodies, read_heads
from aggregator.profiles.codec import Section, decode_sections, encode_sections, merge_sections
from aggregator.profiles.column_sums import ColumnSums
from aggregator.profiles.errors import BlobError, TooMuchError


def made_blobs(seed, count=60, spread=400):
    random = np.random.default_rng(seed)
    blobs = []
    for _ in range(count):
        sections = []
        for series in sorted(random.choice(9, random.integers(0, 6), replace=False).tolist()):
            size = int(random.integers(0, 40))
            ids = np.sort(random.choice(spread, size, replace=False)).astype(np.int64)
            rate = int(random.choice([19_000, 99_000]))
            counts = random.integers(1, 1 << 20, size).astype(np.int64)
            sections.append(Section(series, rate, ids, counts))
        blobs.append(encode_sections(sections))
    return blobs


def rows(sections):
    return [(s.series_id, s.rate_millihertz, s.ids.tolist(), s.counts.tolist()) for s in sections]


def summed(blobs, series=None):
    heads, sums = read_heads(blobs), ColumnSums()
    chosen = np.arange(len(heads.series))
    if series is not None:
        chosen = np.flatnonzero(np.isin(heads.series, series))
    for part in read_bodies(heads, chosen):
        sums.add(heads, part)
    return rows(sums.sections()), heads.damaged.tolist()


@pytest.mark.parametrize("spread", [50, 400, 10**9])
@pytest.mark.parametrize(("part_bytes", "sum_at"), [(1, 10), (500, 300), (1 << 20, 10**6)])
@pytest.mark.parametrize("series", [None, [2, 5], []])
def test_sums_are_those_of_sections(spread, part_bytes, sum_at, series, monkeypatch):
    monkeypatch.setattr(blob_columns, "_PART_BYTES", part_bytes)
    monkeypatch.setattr(column_sums, "_SUM_AT_ROWS", sum_at)
    blobs = made_blobs(spread, spread=spread)
    sections = [s for one in blobs for s in decode_sections(one)]
    if series is not None:
        sections = [s for s in sections if s.series_id in series]

    assert summed(blobs, series) == (rows(merge_sections(sections)), [False] * len(blobs))


def test_a_damaged_blob_counts_for_nothing_and_harms_no_other():
    blobs = made_blobs(7, count=12)
    section = Section(1, 19_000, np.array([5, 6]), np.array([1, 1]))
    whole = encode_sections([section])
    bad = [b"damaged", whole[:-1], encode_raw(whole, -1, 0xFF), encode_raw(whole, 4, 0)]
    bad += [encode_raw(whole, 12, 9), encode_raw(whole, 0, 200)]
    mixed = [*blobs[:4], *bad, *blobs[4:], b""]

    found, damaged = summed(mixed)

    kept = merge_sections(s for one in blobs for s in decode_sections(one))
    changed = encode_raw(whole, 4, 0)  # another series: that blob is whole
    kept = merge_sections([*kept, *decode_sections(changed)])
    assert found == rows(kept)
    assert damaged == [False] * 4 + [True, True, True, False, True, True] + [False] * 9


def encode_raw(blob, at, value):
    """The blob with one byte of its content changed."""
    import zstandard

    raw = bytearray(zstandard.ZstdDecompressor().decompress(blob))
    raw[at] = value
    return zstandard.ZstdCompressor().compress(bytes(raw))


def test_sums_stay_exact_beyond_doubles_and_are_refused_beyond_63_bits():
    blobs = [
        encode_sections([Section(1, 1, np.array([1, 2]), np.array([2**60 + 1, 1]))]),
        encode_sections([Section(1, 1, np.array([1]), np.array([2**60]))]),
    ]
    assert summed(blobs)[0] == [(1, 1, [1, 2], [2**61 + 1, 1])]
    with pytest.raises(BlobError):
        summed(blobs * 4)


def test_too_many_distinct_rows_are_too_much(monkeypatch):
    monkeypatch.setattr(column_sums, "MOST_DISTINCT", 3)
    many = [encode_sections([Section(1, 1, np.arange(1, 5), np.ones(4, np.int64))])]
    few = [encode_sections([Section(1, 1, np.arange(1, 4), np.ones(3, np.int64))])] * 9
    assert summed(few)[0] == [(1, 1, [1, 2, 3], [9, 9, 9])]
    with pytest.raises(TooMuchError):
        summed(many)
