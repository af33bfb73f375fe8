"""Quotas of nodes: token buckets, with debts."""

import pytest

from aggregator.config import Quotas
from aggregator.ingest.errors import OverQuotaError
from aggregator.ingest.quotas import BURST_S, KINDS, NodeQuotas, decoded_megabytes
from wire.codec import encode
from wire.schema import Answer

HONEST_ROWS = 64 * 199  # a second, where each sample is another stack
ALL = KINDS[1:]


class Clock:
    now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def quotas(clock):
    return NodeQuotas(Quotas(), clock)


def test_every_quota_says_how_much_may_come_at_once():
    assert set(BURST_S) == set(KINDS)


def test_the_busiest_honest_node_is_never_held_up(quotas, clock):
    """64 CPUs at 199 Hz for an hour: intervals end at 8,192 stacks, at first all of them new, then
    a tenth; each batch and its definitions are requests."""
    for second in range(3600):
        for _ in range(2):  # 12,736 rows
            quotas.admit(1, "megabytes", "rows", "new_stacks", "new_series")
            quotas.take(1, rows=HONEST_ROWS / 2, megabytes=0.15)
            quotas.take(1, new_stacks=HONEST_ROWS / (2 if second < 8 else 20))
            quotas.admit(1, "megabytes", "new_stacks", "new_frames")
            quotas.take(1, megabytes=0.5, new_frames=HONEST_ROWS / (2 if second < 16 else 20))
        if second % 60 == 0:
            quotas.take(1, new_series=50)
        clock.now_s += 1


@pytest.mark.parametrize("kind", ALL)
def test_over_quota_says_when_to_go_on(quotas, clock, kind):
    rate = getattr(Quotas(), kind)
    burst = rate * BURST_S[kind]
    quotas.admit(1, kind)
    quotas.take(1, **{kind: burst + 9 * rate})

    with pytest.raises(OverQuotaError, match=kind.replace("_", " ")) as refused:
        quotas.admit(1, kind)

    assert (refused.value.status, refused.value.code) == (429, f"over_quota_{kind}")
    assert 9 <= refused.value.retry_after_s <= 11
    quotas.admit(2, kind)  # another node
    quotas.admit(1, *(other for other in ALL if other != kind))  # another kind of request
    clock.now_s += refused.value.retry_after_s
    quotas.admit(1, kind)


def test_requests_are_counted_themselves(quotas, clock):
    for _ in range(25 * 60):
        quotas.admit(1)
    with pytest.raises(OverQuotaError, match="requests"):
        quotas.admit(1)
    clock.now_s += 10
    for _ in range(250):
        quotas.admit(1)
    with pytest.raises(OverQuotaError):
        quotas.admit(1)


def test_the_largest_message_passes_where_anything_is_left(quotas):
    quotas.admit(1, "rows")
    quotas.take(1, rows=1e9)
    with pytest.raises(OverQuotaError) as refused:
        quotas.admit(1, "rows")
    assert refused.value.retry_after_s <= 600  # then it may ask again


def test_a_rest_never_grows_beyond_the_burst(quotas, clock):
    clock.now_s += 1e6
    quotas.admit(1, "rows")
    clock.now_s += 1e6
    quotas.take(1, rows=25_600 * 60 + 1)
    with pytest.raises(OverQuotaError):
        quotas.admit(1, "rows")


def test_no_quota_is_no_limit(clock):
    quotas = NodeQuotas(Quotas(0, 0, 0, 0, 0, 0, 0), clock)
    for _ in range(10_000):
        quotas.admit(1, *ALL)
        quotas.take(1, **dict.fromkeys(ALL, 1e12))


def test_a_message_weighs_what_it_declares():
    body = encode(Answer("stored", want=bytes(8 << 20)))
    assert len(body) < 10_000
    assert 8 < decoded_megabytes(body) < 8.1
    assert decoded_megabytes(b"FF\x01B" + bytes(1 << 20)) == pytest.approx(1, rel=0.01)
    assert decoded_megabytes(b"") == 0
