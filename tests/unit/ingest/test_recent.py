"""The bounded cache of ids."""

from aggregator.ingest.dictionary import uuid_array
from aggregator.ingest.recent import Recent


def test_values_are_found_again():
    recent = Recent(10)
    for number in range(5):
        recent.put(number, number * 2)

    assert [recent.get(number) for number in range(6)] == [0, 2, 4, 6, 8, None]


def test_size_is_bounded():
    recent = Recent(100)
    for number in range(10_000):
        recent.put(number, 1)

    assert len(recent) <= 100
    assert recent.get(9_999) == 1
    assert recent.get(0) is None


def test_what_is_used_stays():
    recent = Recent(100)
    recent.put("used", 1)
    for number in range(10_000):
        recent.put(number, 1)
        assert recent.get("used") == 1


def test_uuid_array():
    assert uuid_array(b"") == "{}"
    assert uuid_array(bytes(15) + b"\x01" + b"\xff" * 16) == "{" + "0" * 31 + "1," + "f" * 32 + "}"


def test_the_size_may_be_in_bytes():
    recent = Recent(10_000, len)
    for number in range(100):
        recent.put(number, "x" * 1_000)
        recent.put(number, "x" * 1_000)
    assert 4 <= len(recent) <= 12
    assert recent.get(99)
    recent.clear()
    assert (len(recent), recent.get(99)) == (0, None)
