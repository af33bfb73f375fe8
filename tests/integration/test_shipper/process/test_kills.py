"""A shipper that is killed anywhere loses nothing and doubles nothing."""

import os
import signal
from pathlib import Path

import pytest

from node_agent.shipper.client import Client
from node_agent.shipper.report import Report
from node_agent.shipper.shipper import POLL_S, Shipper
from node_agent.spool import Spool

LINES_BETWEEN_KILLS = 37  # a prime, so that every function is hit somewhere


def deliver_everything(root, url, token_file) -> None:
    spool = Spool(root)
    spool.create()
    client = Client(url, token_file, None, 5.0)
    with Path(os.devnull).open("w") as nowhere:
        report = Report(spool, nowhere)
        shipper = Shipper(spool, client, report, lambda: 0.0)
        while shipper.step() != POLL_S:
            report.write(force=True)
    client.close()


# The peer's threads are not in the child, which only uses its own sockets and files.
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_killed_at_every_point(peer, sampler, token_file, killed_at):
    root = sampler.spool.root
    kills, line = 0, 0
    while True:
        sampler.put(rows=3)
        sampler.put(rows=3)
        if killed_at(line, lambda: deliver_everything(root, peer.url, token_file)):
            break
        kills += 1
        line += LINES_BETWEEN_KILLS
        if line % 3 == 0:  # otherwise the next one starts with what this one left
            deliver_everything(root, peer.url, token_file)
    deliver_everything(root, peer.url, token_file)
    assert kills > 20
    assert peer.duplicates > 0
    assert peer.counts == sampler.counts
    assert peer.lost_batches == 0
    assert set(peer.definitions) == set(sampler.counts)
    assert sampler.spool.pending() == []


def test_a_real_process_killed_again_and_again(peer, sampler, ship, wait_until):
    for _ in range(6):
        sampler.put()
        process = ship(peer.url)
        seen = len(peer.requests)
        wait_until(lambda seen=seen: len(peer.requests) > seen)
        code, _ = process.stop(signal.SIGKILL)
        assert code == -signal.SIGKILL
    ship(peer.url)
    wait_until(lambda: not sampler.spool.pending())
    assert peer.counts == sampler.counts
    assert peer.lost_batches == 0
    assert set(peer.definitions) == set(sampler.counts)
