"""One step after the other, in this process, against the peer."""

import os
import time
from array import array

import pytest

from node_agent.shipper.client import Client
from node_agent.shipper.definitions import split_hashes
from node_agent.shipper.report import Report
from node_agent.shipper.shipper import POLL_S, Shipper
from wire.codec import SHORT_TYPE, decode, encode
from wire.schema import Answer, Batch, SymbolDirective, SymbolExtract


def drain(shipper) -> None:
    while shipper.step() != POLL_S:
        pass


def assert_exactly_once(peer, sampler) -> None:
    assert peer.counts == sampler.counts
    assert peer.lost_batches == 0
    assert set(peer.definitions) == set(sampler.counts)


def test_batches_with_their_definitions_arrive_once_over_one_connection(shipper, peer, sampler):
    for _ in range(5):
        sampler.put()
    drain(shipper)
    assert_exactly_once(peer, sampler)
    assert peer.connections == 1
    assert peer.duplicates == 0
    assert sampler.spool.usage_bytes() == 0
    status = shipper.report.status()
    assert status["sent"]["batches"] == 5
    assert status["state"] == "idle"
    assert status["usage"]["cpu_ns"] > 0
    assert status["usage"]["memory_bytes"] > 1 << 20


def test_an_older_centre_gets_whole_batches_only(shipper, peer, sampler):
    bodies = []
    post = shipper.client.post

    def note(path, body, accept=""):
        body.seek(0)
        bodies.append(body.read(3))
        return post(path, body, accept)

    shipper.client.post = note
    for _ in range(3):
        sampler.put(define=False)
    drain(shipper)
    assert bodies == [b"FF\1"] * 3
    assert peer.counts == sampler.counts


def test_a_centre_that_went_back_to_an_older_release_gets_whole_batches(
    shipper, peer, sampler, said
):
    def number(handler):
        """Answer as a centre that knows wire version 2."""
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        assert handler.headers["Accept"] == SHORT_TYPE
        peer.store(body)
        hashes = split_hashes(decode(body, Batch).stack_hashes)
        numbers = array("I", range(1, len(set(hashes)) + 1)).tobytes()
        series = array("I", [1]).tobytes()
        answer = Answer("stored", stack_numbers=numbers, series_numbers=series)
        handler.reply(200, encode(answer))
        return True

    peer.faults.append(number)
    for _ in range(3):
        sampler.seed.seed(7)  # the same stacks
        sampler.put(define=False)
    drain(shipper)
    assert peer.counts == sampler.counts
    assert peer.requests == ["/api/v1/batches"] * 4
    assert shipper.spool.dropped == {}
    assert shipper.report.status()["sent"] == {"batches": 3, "whole_again": 1}
    assert "wire version 2 is unknown here" in said.getvalue()


def test_numbers_that_do_not_fit_are_no_answer_of_an_aggregator(shipper, peer, sampler):
    def odd(handler):
        handler.outcome()
        handler.reply(200, encode(Answer("stored", stack_numbers=b"odd")))
        return True

    peer.faults.append(odd)
    sampler.put()
    assert shipper.step() > 0
    assert shipper.report.state == "waiting"
    drain(shipper)
    assert_exactly_once(peer, sampler)


def test_known_stacks_are_not_defined_again(shipper, peer, sampler):
    sampler.put()
    drain(shipper)
    sampler.known.clear()
    sampler.seed.seed(7)
    sampler.put()
    drain(shipper)
    assert peer.requests.count("/api/v1/definitions") == 1
    assert_exactly_once(peer, sampler)


def test_wanted_stacks_that_are_not_kept_become_an_order_to_define(shipper, peer, sampler):
    sampler.put(rows=3, define=False)
    drain(shipper)
    (order,) = sampler.spool.take_directives()
    assert order["kind"] == "define"
    assert {bytes.fromhex(one) for one in order["hashes"]} == set(sampler.counts)
    assert "/api/v1/definitions" not in peer.requests
    assert sampler.spool.pending() == []


def test_orders_for_symbols_are_passed_on_and_extracts_delivered(shipper, peer, sampler):
    build_id = b"\xab" * 20
    peer.directives = [SymbolDirective(0, build_id), SymbolDirective(7, b"../etc/passwd")]
    sampler.put()
    drain(shipper)
    assert sampler.spool.take_directives() == [
        {"kind": "symbols", "module_kind": 0, "build_id": build_id.hex()}
    ]
    assert sampler.spool.dropped == {"directive_malformed": 1}
    extract = SymbolExtract("web-1", 0, build_id, "libc.so.6", bytes(3 << 20))
    sampler.spool.put_extract(encode(extract), build_id, 0)
    drain(shipper)
    assert peer.extracts == [extract]
    assert sampler.spool.usage_bytes() == 0


def test_batches_go_before_extracts(shipper, peer, sampler):
    sampler.spool.put_extract(encode(SymbolExtract("web-1", 0, b"\1", "x", b"")), b"\1", 0)
    sampler.put()
    drain(shipper)
    assert peer.requests[0] == "/api/v1/batches"
    assert peer.requests[-1] == "/api/v1/symbols"


def test_extracts_over_quota_hold_up_no_batch(shipper, peer, sampler, fault, monkeypatch):
    extract = SymbolExtract("web-1", 0, b"\1" * 20, "libc", b"symbols")
    sampler.spool.put_extract(encode(extract), extract.build_id, 0)
    peer.faults.append(fault.status(429, Retry_After="600"))

    assert shipper.step() == 0.0
    assert shipper.report.state == "waiting"
    sampler.put()
    drain(shipper)
    assert_exactly_once(peer, sampler)
    assert (peer.extracts, len(sampler.spool.pending_extracts())) == ([], 1)

    later_s = time.monotonic() + 601
    monkeypatch.setattr("node_agent.shipper.shipper.time.monotonic", lambda: later_s)
    drain(shipper)
    assert peer.extracts == [extract]


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_a_refusal_for_good_is_counted_and_not_in_the_way(
    shipper, peer, sampler, fault, status, said
):
    sampler.put()
    sampler.put()
    peer.faults.append(fault.status(status))
    drain(shipper)
    assert sampler.spool.dropped == {f"refused_{status}": 1}
    assert peer.lost_batches == 1
    assert [sequence for sequence, _ in peer.high_water.values()] == [2]
    assert len(list((sampler.spool.root / "refused").iterdir())) == 1
    assert sampler.spool.pending() == []
    assert f"refused for good: {status} because" in said.getvalue()


def test_an_answer_before_the_whole_body_was_read_counts(shipper, peer, sampler, fault):
    extract = SymbolExtract("web-1", 0, b"\1" * 20, "libc.so.6", os.urandom(8 << 20))
    sampler.spool.put_extract(encode(extract), extract.build_id, 0)
    peer.faults.append(fault.answer_without_reading)
    drain_patiently(shipper)
    assert sampler.spool.pending_extracts() == []


def drain_patiently(shipper) -> None:
    for _ in range(20):
        if shipper.step() == POLL_S:
            return
    raise AssertionError("still something to deliver")


def test_a_cloned_node_is_refused_with_an_alert(shipper, peer, sampler):
    batch = sampler.put()
    drain(shipper)
    sampler.sequence -= 1
    assert sampler.put().sequence == batch.sequence
    drain(shipper)
    assert sampler.spool.dropped == {"refused_409": 1}
    (alert,) = shipper.report.status()["alerts"]
    assert alert["message"].startswith("cloned node")


@pytest.mark.parametrize("status", [401, 403])
def test_denied_credentials_keep_everything_and_are_said_loudly(
    shipper, peer, sampler, token_file, said, status, fault
):
    sampler.put()
    if status == 401:
        token_file.write_text("some other token")
    else:
        peer.faults.extend([fault.status(403)] * 2)
    first, second = shipper.step(), shipper.step()
    assert 1 <= first <= 2
    assert 2 <= second <= 4
    assert len(sampler.spool.pending()) == 1
    assert shipper.report.state == "denied"
    assert f"credentials denied (HTTP {status}" in said.getvalue()
    assert "some other token" not in said.getvalue()
    token_file.write_text(peer.token)  # a new token is used without a restart
    drain(shipper)
    assert_exactly_once(peer, sampler)
    assert "delivering again" in said.getvalue()


def test_a_token_file_that_goes_away_keeps_everything(shipper, peer, sampler, token_file, said):
    sampler.put()
    token_file.unlink()
    shipper.step()
    assert shipper.report.state == "denied"
    assert "cannot read the token file" in said.getvalue()
    token_file.write_text(peer.token)
    drain(shipper)
    assert_exactly_once(peer, sampler)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_obeyed(shipper, peer, sampler, fault, status):
    sampler.put()
    peer.faults.append(fault.status(status, Retry_After="17"))
    assert shipper.step() == 17.5
    assert len(sampler.spool.pending()) == 1
    drain(shipper)
    assert_exactly_once(peer, sampler)


@pytest.mark.parametrize("status", [404, 301, 307, 500, 502, 504, 202, 408])
def test_other_answers_cost_nothing(shipper, peer, sampler, fault, status):
    sampler.put()
    peer.faults.append(fault.status(status, Location="http://127.0.0.1:1/"))
    assert 1 <= shipper.step() <= 2
    assert len(sampler.spool.pending()) == 1
    drain(shipper)
    assert_exactly_once(peer, sampler)
    assert sampler.spool.dropped == {}


@pytest.mark.parametrize(
    "name",
    [
        "cut_before_reading",
        "cut_after_commit",
        "truncate",
        "garbage",
        "odd_want",
        "endless",
        "silence",
        "close_after_answer",
    ],
)
@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_broken_exchanges_lose_and_double_nothing(shipper, peer, sampler, fault, name, at):
    """`at` counts requests: batch 1, its definitions, batch 2, its definitions."""
    shipper.client._timeout_s = 0.3
    sampler.put()
    sampler.put()
    peer.faults.extend([None] * at + [getattr(fault, name)])
    for _ in range(200):  # on a slow machine more than one exchange takes that long
        shipper.step()
        if not peer.faults and not sampler.spool.usage_bytes():
            break
    assert not peer.faults
    assert_exactly_once(peer, sampler)
    assert sampler.spool.usage_bytes() == 0
    assert sampler.spool.dropped == {}


def test_a_closed_kept_alive_connection_is_no_failure(shipper, peer, sampler, fault):
    for _ in range(3):
        sampler.put()
        peer.faults.extend([fault.close_after_answer] * 2)
        drain(shipper)
    assert_exactly_once(peer, sampler)
    assert shipper.report.status()["last_error"] is None
    assert peer.connections > 1


def test_refused_definitions_are_counted_and_not_in_the_way(shipper, peer, sampler, fault):
    sampler.put()
    sampler.put()
    peer.faults.extend([None, fault.status(422)])
    drain(shipper)
    assert peer.counts == sampler.counts
    assert sampler.spool.dropped == {"definitions_refused_422": 1}


def test_stacks_that_the_centre_refused_are_counted_and_said(shipper, peer, sampler, said, fault):
    sampler.put()
    sampler.put()
    body = encode(Answer("stored", refused={"stack_line": 2, "stack_hash": 1}))
    peer.faults.extend([None, fault.status(200, body)])
    drain(shipper)
    assert peer.counts == sampler.counts
    assert sampler.spool.dropped == {"stacks_refused": 3}
    assert "the centre refused stacks: stack_line 2, stack_hash 1" in said.getvalue()


def test_files_that_are_no_batches(shipper, peer, sampler, said):
    sampler.put()
    folder = sampler.spool.root / "batches"
    run = "0" * 32
    (folder / f"{run}-000000000001.batch").write_bytes(b"")
    (folder / f"{run}-000000000002.batch").symlink_to("/etc/passwd")
    (folder / f"{run}-000000000003.batch").write_bytes(bytes(9 << 20))
    (folder / f"{run}-000000000004.batch").mkdir()
    (folder / "notes.txt").write_text("")
    drain(shipper)
    assert peer.counts == sampler.counts
    assert sampler.spool.dropped == {"refused_400": 1, "refused_unreadable": 3}
    assert "not a Flamefleet message" in said.getvalue()


def test_broken_definitions_become_an_order_to_define(shipper, peer, sampler):
    sampler.put()
    (definitions,) = (sampler.spool.root / "batches").glob("*.defs")
    definitions.write_bytes(b"FF\1D" + b"garbage")
    drain(shipper)
    (order,) = sampler.spool.take_directives()
    assert {bytes.fromhex(one) for one in order["hashes"]} == set(sampler.counts)
    assert sampler.spool.dropped == {"definitions_unreadable": 1}


def test_a_batch_dropped_from_the_spool_meanwhile(shipper, peer, sampler, fault):
    sampler.put()
    sampler.put()
    peer.faults.append(fault.status(503))
    shipper.step()
    sampler.spool.done(sampler.spool.pending()[0])
    drain(shipper)
    assert peer.lost_batches == 1
    assert sampler.spool.pending() == []


def test_nobody_there_and_then_somebody(spool, sampler, token_file, said, peer):
    sampler.put()
    client = Client("http://127.0.0.1:1", token_file, None, 2.0)
    shipper = Shipper(spool, client, Report(spool, said), lambda: 1.0)
    waits = [shipper.step() for _ in range(8)]
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60]
    assert "Connection refused" in said.getvalue()
    assert shipper.report.status()["state"] == "waiting"
    shipper.client = Client(peer.url, token_file, None, 2.0)
    drain(shipper)
    shipper.client.close()
    assert_exactly_once(peer, sampler)


def test_a_backlog_is_replayed_with_pauses(shipper, sampler, peer):
    for _ in range(4):
        sampler.put()
    pauses = [shipper.step() for _ in range(5)]
    assert all(0.02 <= pause <= 1 for pause in pauses[:3])
    assert pauses[3:] == [0.0, POLL_S]
