"""Batches in their short form: what it takes, and that nothing is lost on the way."""

from array import array
from hashlib import blake2b

import msgspec
import pytest

from wire.codec import decode, encode
from wire.errors import MalformedError
from wire.hashes import batch_check, batch_digest, labels_hash
from wire.schema import Batch, Event, Overhead, Series
from wire.short import Numbers, ShortBatch, from_planes, shorten, to_planes, widen_ends

STACKS, SERIES = 300, 12


def stack_hash(number):
    return blake2b(number.to_bytes(4, "little"), digest_size=16).digest()


def u32(values):
    return array("I", values).tobytes()


def make_batch(stacks=STACKS):
    """As of a host with twelve services: most stacks seen once, a few often."""
    rows = range(stacks)
    series_index = [row * 7 % SERIES for row in rows]
    counts = [1 + (row % 40 == 0) * (row % 97) for row in rows]
    samples = [0] * SERIES
    for one, count in zip(series_index, counts, strict=True):
        samples[one] += count
    return Batch(
        node="web-1.example",
        run=bytes(range(16)),
        sequence=812,
        start_ns=1_767_225_600_123_456_789,
        duration_ns=10_000_123_456,
        rate_millihertz=19_000,
        collector="cpu",
        online_cpus=2,
        series=[
            Series(
                {
                    "service": f"service-{n}",
                    "executable": f"program-{n}",
                    "build_id": stack_hash(900_000 + n).hex() + "00112233",
                }
            )
            for n in range(SERIES)
        ],
        stack_hashes=b"".join(map(stack_hash, rows)),
        series_index=u32(series_index),
        counts=u32(counts),
        lost={},
        overhead=Overhead(
            *(213250120, 13311440, 48415444, 27706000, 37939016, 3356488),
            *(1.5069053703820467, 2.2558705112239092, 38.4646003, 14312, 731, 11055104),
        ),
        agent_version="0.1.0",
        facts={
            "kernel": "6.1.0-28-amd64",
            "preset": "production",
            "machine": "x86_64",
            "asked_hz": "19",
            "budget_percent": "0.5",
            "budget_user_percent": "2",
            "mode": "core",
            "on_demand_max_rate_hz": "199",
            "on_demand_collectors": "cpu",
            "effective_hz": "18.9",
        },
        stack_ends={"complete": u32(samples), "truncated": u32([0] * SERIES)},
        events=[Event(1_767_225_600_000_000_001, "governor", "cpu", "words", 1.5, 1.0, "a", "b")],
        python_ends={"complete": u32([0] * SERIES)},
    )


def numbers_of(batch, stacks=None):
    """Numbers as a centre gives them that has 3,000,000 stacks of many hosts."""
    count = len(batch.stack_hashes) // 16 if stacks is None else stacks
    spread = {
        stack_hash(n): 1 + int.from_bytes(stack_hash(n)[:4], "little") % 3_000_000
        for n in range(count)
    }
    return Numbers(spread, {labels_hash(s.labels): 40 + 3 * n for n, s in enumerate(batch.series)})


def test_a_batch_of_known_stacks_takes_at_most_four_bytes_a_row():
    batch = msgspec.structs.replace(make_batch(1000), events=[])
    known = encode(shorten(batch, batch_digest(batch), numbers_of(batch)))
    assert len(known) <= 4 * 1000
    assert len(encode(batch)) > 16 * 1000


def test_what_does_not_depend_on_rows_takes_at_most_350_bytes():
    batch = msgspec.structs.replace(
        make_batch(0), events=[], stack_ends={}, python_ends={}, series=[]
    )
    assert len(encode(shorten(batch, batch_digest(batch), Numbers({}, {})))) <= 350


@pytest.mark.parametrize("known", [0, 1, 150, STACKS])
def test_rows_are_those_of_the_batch_whatever_is_known(known):
    batch = make_batch()
    numbers = numbers_of(batch, known)
    short = decode(encode(shorten(batch, batch_digest(batch), numbers)), ShortBatch)

    by_number = {number: one for one, number in numbers.stacks.items()}
    numbered, hashed = (
        [row for row, rows in enumerate(from_planes("", column)) for _ in range(rows)]
        for column in (short.numbered_rows, short.hashed_rows)
    )
    total, hashes = 0, []
    for step in from_planes("", short.numbers):
        total = (total + step) % 2**32
        hashes.append(by_number[total])
    expected_check = batch_check(
        batch_digest(batch), [labels_hash(s.labels) for s in batch.series], hashes
    )
    hashes += [short.hashes[at : at + 16] for at in range(0, len(short.hashes), 16)]
    counts = [*from_planes("", short.numbered_counts), *from_planes("", short.hashed_counts)]
    got = sorted(zip(numbered + hashed, hashes, counts, strict=True))
    assert got == sorted(
        zip(
            array("I", batch.series_index),
            [batch.stack_hashes[at : at + 16] for at in range(0, len(batch.stack_hashes), 16)],
            array("I", batch.counts),
            strict=True,
        )
    )
    assert (len(numbered), len(hashed)) == (known, STACKS - known)
    assert short.check == expected_check
    assert short.digest == batch_digest(batch)
    assert short.series == [40 + 3 * n for n in range(SERIES)]
    samples = [sum(c for row, _, c in got if row == one) for one in range(SERIES)]
    assert widen_ends("stack_ends", short.stack_ends, samples) == batch.stack_ends
    assert widen_ends("python_ends", short.python_ends, samples) == batch.python_ends
    for field in ("node", "run", "facts", "agent_version", "sequence", "start_ns", "lost"):
        assert getattr(short, field) == getattr(batch, field)
    assert msgspec.structs.astuple(short.overhead) == msgspec.structs.astuple(batch.overhead)
    assert [msgspec.structs.astuple(one) for one in short.events] == [
        msgspec.structs.astuple(one) for one in batch.events
    ]


@pytest.mark.parametrize("values", [[], [0], [2**32 - 1], [1, 256, 65536, 2**24, 7]])
def test_planes_there_and_back(values):
    assert list(from_planes("x", to_planes(values))) == values


def test_planes_cut_short_are_refused():
    with pytest.raises(MalformedError, match="numbers has 5 bytes, not a multiple of 4"):
        from_planes("numbers", bytes(5))


def test_ends_of_another_number_of_series_are_refused():
    with pytest.raises(MalformedError, match=r"stack_ends\.complete must have 2 rows"):
        widen_ends("stack_ends", {"complete": to_planes([1])}, [1, 2])


def test_labels_are_the_same_in_any_order_and_without_the_host():
    assert labels_hash({"a": "1", "b": "2"}) == labels_hash({"b": "2", "host": "x", "a": "1"})
    assert labels_hash({"a": "1\0b"}) != labels_hash({"a": "1", "b": ""})
    assert labels_hash({"a": "b"}) != labels_hash({"b": "a"})
