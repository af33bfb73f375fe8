import numpy as np
import pytest
import zstandard

from aggregator.profiles.codec import (
    Section,
    decode_blobs,
    decode_sections,
    encode_sections,
    merge_sections,
)
from aggregator.profiles.errors import BlobError
from aggregator.profiles.varint import decode_varints, encode_varints

EDGES = [0, 1, 127, 128, 16383, 16384, 2**31, 2**32 - 1, 2**53 + 1, 2**56 - 1, 2**62, 2**63 - 1]


def section(series_id, rate, ids, counts):
    return Section(series_id, rate, np.array(ids, np.int64), np.array(counts, np.int64))


def rows(sections):
    return [(s.series_id, s.rate_millihertz, s.ids.tolist(), s.counts.tolist()) for s in sections]


def blob(*words, bodies=b""):
    return zstandard.ZstdCompressor().compress(np.array(words, "<u4").tobytes() + bodies)


def test_varints_of_every_size_come_back():
    values = np.array(EDGES, np.int64)
    decoded, ends = decode_varints(np.frombuffer(encode_varints(values), np.uint8))
    assert decoded.tolist() == EDGES
    assert np.diff(ends, prepend=0).tolist() == [
        max(1, -(-value.bit_length() // 7)) for value in EDGES
    ]


def test_varints_agree_with_the_reference_encoding():
    # DWARF 5, section 7.6, figure 45: 2, 127, 128, 129, 12857.
    values = np.array([2, 127, 128, 129, 12857], np.int64)
    assert encode_varints(values) == bytes([2, 127, 0x80, 1, 0x81, 1, 0x80 | 0x39, 0x64])


def test_negative_values_are_refused():
    with pytest.raises(BlobError, match="negative"):
        encode_varints(np.array([3, -1], np.int64))


@pytest.mark.parametrize(
    "sections",
    [
        [],
        [section(1, 19_000, [], [])],
        [section(1, 19_000, [0], [1])],
        [section(7, 19_000, EDGES, [1 + n for n in range(len(EDGES))])],
        [section(7, 19_000, range(len(EDGES)), [max(1, value) for value in EDGES])],
        [section(1, 19_000, [5, 6], [1, 2]), section(1, 99_000, [5], [300]), section(2, 1, [], [])],
    ],
)
def test_sections_come_back(sections):
    assert rows(decode_sections(encode_sections(sections))) == rows(sections)


def test_random_sections_come_back_in_order():
    random = np.random.default_rng(1)
    sections = []
    for series in random.permutation(40):
        ids = np.unique(random.integers(0, 1 << 40, 500))
        sections.append(section(int(series), 19_000, ids, random.integers(1, 1 << 20, len(ids))))
    decoded = decode_sections(encode_sections(sections))
    assert rows(decoded) == rows(sorted(sections, key=lambda s: s.series_id))


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ([section(1, 1, [2, 1], [1, 1])], "sorted"),
        ([section(1, 1, [1, 1], [1, 1])], "sorted"),
        ([section(1, 1, [-1, 1], [1, 1])], "negative"),
        ([section(1, 1, [1], [0])], "counts must be 1"),
        ([section(1, 1, [1, 2], [1])], "one length"),
        ([section(1, 0, [1], [1])], "rate_millihertz"),
        ([section(-1, 1, [1], [1])], "series id"),
        ([section(1, 1, [1], [1]), section(1, 1, [2], [1])], "twice"),
        ([Section(1, 1, np.array([1], np.int32), np.array([1], np.int64))], "int64"),
    ],
)
def test_bad_sections_are_refused(sections, words):
    with pytest.raises(BlobError, match=words):
        encode_sections(sections)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "zstd"),
        (b"not a blob at all", "zstd"),
        (encode_sections([section(1, 1, [1], [1])])[:-3], "truncated"),
        (zstandard.ZstdCompressor().compress(b"\1\0"), "no header"),
        (blob(2, 1, 1, 0), "no room"),
        (blob(0xFFFFFFFF), "no room"),
        (blob(0, bodies=b"\1"), "add up"),
        (blob(1, 1, 1, 9, bodies=b"\1\1"), "add up"),
        (blob(1, 1, 1, 1, bodies=b"\x80"), "cut off"),
        (blob(1, 1, 1, 1, bodies=b"\1"), "more ids than counts"),
        (blob(1, 1, 1, 2, bodies=b"\1\0"), "count of 0"),
        (blob(1, 1, 1, 4, bodies=b"\1\0\1\1"), "out of order"),
        (blob(1, 1, 1, 11, bodies=b"\xff" * 9 + b"\1\1"), "at most 9"),
        (blob(1, 1, 1, 12, bodies=b"\xff" * 8 + b"\x7f\1\1\1"), "out of order"),
        (blob(2, 1, 1, 1, 2, 1, 3, bodies=b"\x81\1\1\1"), "inside a varint"),
        (blob(2, 2, 1, 2, 1, 1, 2, bodies=b"\1\1\1\1"), "order of"),
        (blob(2, 1, 1, 2, 1, 1, 2, bodies=b"\1\1\1\1"), "order of"),
        (blob(1, 1, 0, 2, bodies=b"\1\1"), "order of"),
    ],
)
def test_corrupt_blobs_are_refused_by_name(data, words):
    with pytest.raises(BlobError, match=words):
        decode_sections(data)


def test_blobs_decoded_together_are_as_each_alone_and_damage_stays_where_it_is(monkeypatch):
    random = np.random.default_rng(5)
    blobs = []
    for size in (3, 0, 1, 40, 0, 7):
        sections = []
        for series in range(size):
            ids = np.unique(random.integers(0, 1 << 62, random.integers(0, 9)))
            sections.append(section(series, 19_000, ids, random.integers(1, 300, len(ids))))
        blobs.append(encode_sections(sections))
    alone = [rows(decode_sections(data)) for data in blobs]
    for together_bytes in (0, 100, 1 << 20):
        monkeypatch.setattr("aggregator.profiles.codec._TOGETHER_BYTES", together_bytes)
        assert [rows(sections) for sections in decode_blobs(blobs)] == alone
        damaged = [
            *(b"", blobs[0], blob(1, 1, 1, 1, bodies=b"\x80"), blobs[3]),
            *(blob(0, bodies=b"\1\1"), blob(1, 1, 1, 2, bodies=b"\1\0"), blobs[5]),
        ]
        decoded = list(decode_blobs(damaged))
        assert [sections is None for sections in decoded] == [1, 0, 1, 0, 1, 1, 0]
        assert [rows(decoded[i]) for i in (1, 3, 6)] == [alone[0], alone[3], alone[5]]
    assert list(decode_blobs([])) == []


def test_a_blob_that_declares_too_much_is_refused_before_it_is_unpacked(monkeypatch):
    data = encode_sections([section(1, 1, range(3000), [1] * 3000)])
    monkeypatch.setattr("aggregator.profiles.codec.MAX_DECODED_BYTES", 100)
    with pytest.raises(BlobError, match="declares"):
        decode_sections(data)


def test_random_damage_never_gives_anything_but_a_named_error():
    random = np.random.default_rng(2)
    good = encode_sections([section(3, 19_000, range(0, 900, 3), [7] * 300)])
    for _ in range(500):
        data = bytearray(good)
        for place in random.integers(0, len(data), 3):
            data[place] = random.integers(0, 256)
        try:
            decode_sections(bytes(data))
        except BlobError:
            continue


def test_merge_adds_counts_of_the_same_series_and_rate():
    merged = merge_sections(
        [
            section(2, 19_000, [1, 5], [1, 1]),
            section(1, 99_000, [4], [9]),
            section(2, 19_000, [0, 5, 9], [2, 3, 4]),
            section(1, 19_000, [4], [1]),
            section(3, 19_000, [], []),
        ]
    )
    assert rows(merged) == [
        (1, 19_000, [4], [1]),
        (1, 99_000, [4], [9]),
        (2, 19_000, [0, 1, 5, 9], [2, 1, 4, 4]),
    ]


@pytest.mark.parametrize("spread", [1, 1 << 50])  # dense ids and sparse ones
def test_merge_agrees_with_adding_up_by_hand(spread):
    random = np.random.default_rng(3)
    expected: dict[tuple[int, int, int], int] = {}
    sections = []
    for _ in range(60):
        ids = np.unique(random.integers(0, 200, 50)) * spread
        made = section(
            int(random.integers(3)),
            int(random.integers(1, 3)) * 1000,
            ids,
            random.integers(1, 9, len(ids)),
        )
        sections.append(made)
        for stack, count in zip(made.ids.tolist(), made.counts.tolist(), strict=True):
            key = (made.series_id, made.rate_millihertz, stack)
            expected[key] = expected.get(key, 0) + count
    merged = {
        (s.series_id, s.rate_millihertz, stack): count
        for s in merge_sections(sections)
        for stack, count in zip(s.ids.tolist(), s.counts.tolist(), strict=True)
    }
    assert merged == expected


def test_merge_is_exact_beyond_doubles():
    [merged] = merge_sections([section(1, 1, [1, 2], [2**60 + 1, 1]), section(1, 1, [1], [2**60])])
    assert merged.counts.tolist() == [2**61 + 1, 1]


def test_merge_refuses_a_sum_beyond_63_bits():
    with pytest.raises(BlobError, match="63 bits"):
        merge_sections([section(1, 1, [1], [2**62]), section(1, 1, [1], [2**62])])
