"""Definitions ahead of their batch: whatever becomes of them, the batch is delivered once and its
stacks are defined. The peer knows no short batches, so each goes whole after all."""

from array import array

import pytest

from node_agent.shipper.definitions import split_hashes
from node_agent.shipper.shipper import POLL_S
from wire.codec import DEFINITIONS_VERSION, SHORT_TYPE, decode, encode
from wire.schema import Answer, Batch

ROWS = 30
BATCHES, DEFINITIONS = "/api/v1/batches", "/api/v1/definitions"


@pytest.fixture
def number(peer):
    """number(…): a fault that answers a batch as a centre of today, which wants every stack; with
    `packs` false one that is of an older release from then on."""

    def make(definitions=DEFINITIONS_VERSION, *, packs=True):
        def answer(handler):
            peer.packs = packs
            body = handler.rfile.read(int(handler.headers["Content-Length"]))
            assert handler.headers["Accept"] == SHORT_TYPE
            peer.store(body)
            hashes = b"".join(sorted(set(split_hashes(decode(body, Batch).stack_hashes))))
            numbers = array("I", range(1, len(hashes) // 16 + 1)).tobytes()
            labels = array("I", [1]).tobytes()
            handler.reply(200, encode(Answer("stored", hashes, [], numbers, labels, definitions)))
            return True

        return answer

    return make


def drain(shipper) -> None:
    for _ in range(100):
        if shipper.step() == POLL_S:
            return
    raise AssertionError("still something to deliver")


def assert_all_arrived(peer, sampler) -> None:
    assert peer.counts == sampler.counts
    assert peer.lost_batches == 0
    assert set(peer.definitions) == set(sampler.counts)
    assert sampler.spool.usage_bytes() == 0
    assert sampler.spool.dropped == {}


def garbage(handler) -> bool:
    handler.rfile.read(int(handler.headers["Content-Length"]))
    handler.reply(200, b"FF\1A" + b"garbage")
    return True


def no_numbers(handler) -> bool:
    handler.rfile.read(int(handler.headers["Content-Length"]))
    handler.reply(200, encode(Answer("stored")))
    return True


def odd_numbers(handler) -> bool:
    handler.rfile.read(int(handler.headers["Content-Length"]))
    handler.reply(200, encode(Answer("stored", stack_numbers=b"odd")))
    return True


@pytest.mark.parametrize(
    "failure",
    [
        *(204, 400, 413, 415, 422, 409),
        *(500, 502, 503, 429, 404, 401),
        *("garbage", "no_numbers", "odd_numbers"),
    ],
)
def test_definitions_that_fail_ahead_of_their_batch_follow_it(
    failure, shipper, peer, sampler, fault, number
):
    own = {"garbage": garbage, "no_numbers": no_numbers, "odd_numbers": odd_numbers}
    ahead = fault.status(failure, b"") if isinstance(failure, int) else own[failure]
    peer.faults.extend([number(), None, ahead])
    for _ in range(3):
        sampler.put(rows=ROWS)
    drain(shipper)
    assert_all_arrived(peer, sampler)
    assert peer.requests[:3] == [BATCHES, DEFINITIONS, DEFINITIONS]
    # It was tried once: the batch went first when it was tried again, and the one after it too.
    short, whole = BATCHES, BATCHES
    assert peer.requests[3:] == [short, whole, DEFINITIONS, BATCHES, DEFINITIONS]


@pytest.mark.parametrize("name", ["cut_before_reading", "cut_after_commit"])
def test_a_connection_that_breaks_on_definitions_ahead_is_not_in_the_way(
    name, shipper, peer, sampler, fault, number
):
    """Cut twice: the client itself tries a kept-alive connection again."""
    peer.faults.extend([number(), None, *[getattr(fault, name)] * 2])
    for _ in range(3):
        sampler.put(rows=ROWS)
    drain(shipper)
    assert_all_arrived(peer, sampler)
    assert peer.requests[:5] == [BATCHES, *[DEFINITIONS] * 3, BATCHES]


def test_a_centre_that_refuses_packed_definitions_gets_them_as_they_were(
    shipper, peer, sampler, number
):
    peer.faults.append(number(packs=False))
    for _ in range(2):
        sampler.put(rows=ROWS)
    drain(shipper)
    assert_all_arrived(peer, sampler)
    packed, plain = DEFINITIONS, DEFINITIONS
    assert peer.requests == [BATCHES, packed, plain, BATCHES, BATCHES, plain]


@pytest.mark.parametrize("status", [500, 502])
def test_a_centre_that_fails_on_packed_definitions_gets_them_as_they_were(
    status, shipper, peer, sampler, number, fault
):
    peer.faults.extend([number(packs=False), fault.status(status)])
    sampler.put(rows=ROWS)
    drain(shipper)
    assert_all_arrived(peer, sampler)
    short, whole, plain = BATCHES, BATCHES, DEFINITIONS
    assert peer.requests == [BATCHES, DEFINITIONS, short, whole, plain]
    assert peer.duplicates == 1


def test_definitions_go_ahead_and_their_batch_follows(shipper, peer, sampler, number):
    peer.faults.append(number())
    for _ in range(2):
        sampler.put(rows=ROWS)
    drain(shipper)
    assert_all_arrived(peer, sampler)
    short, whole = BATCHES, BATCHES
    assert peer.requests == [BATCHES, DEFINITIONS, DEFINITIONS, short, whole]


def test_a_centre_that_does_not_say_so_gets_no_definitions_ahead(shipper, peer, sampler, number):
    peer.faults.append(number(definitions=0))
    for _ in range(2):
        sampler.put(rows=ROWS)
    drain(shipper)
    assert_all_arrived(peer, sampler)
    assert peer.requests == [BATCHES, DEFINITIONS, BATCHES, BATCHES, DEFINITIONS]


def test_definitions_that_cannot_be_read_are_an_order_to_define(shipper, peer, sampler, number):
    peer.faults.append(number())
    sampler.put(rows=ROWS)
    drain(shipper)
    batch = sampler.put(rows=ROWS)
    (definitions,) = (sampler.spool.root / "batches").glob("*.defs")
    definitions.write_bytes(b"FF\1D" + b"garbage")
    drain(shipper)
    assert peer.counts == sampler.counts
    (order,) = sampler.spool.take_directives()
    new = set(split_hashes(batch.stack_hashes)) - set(peer.definitions)
    assert {bytes.fromhex(one) for one in order["hashes"]} == new
    assert sampler.spool.dropped == {"definitions_unreadable": 1}
