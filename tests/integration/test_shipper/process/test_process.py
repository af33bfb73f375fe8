"""`flamefleet-agent ship` as people start it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest


def test_delivers_and_stops_cleanly(peer, sampler, ship, wait_until):
    sampler.put()
    process = ship(peer.url)
    wait_until(lambda: not sampler.spool.pending())
    sampler.put()
    wait_until(lambda: not sampler.spool.pending())
    code, said = process.stop(signal.SIGTERM)
    assert code == 0
    assert f"delivering {sampler.spool.root} to {peer.url}" in said
    assert peer.counts == sampler.counts
    status = sampler.spool.read_status("shipper")
    assert status["state"] == "stopped"
    assert status["sent"]["batches"] == 2
    assert status["pid"] == process.child.pid
    assert set(status["usage"]) == {"pid", "cpu_ns", "memory_bytes"}


def test_stops_while_the_centre_does_not_answer(peer, sampler, ship, wait_until, fault):
    sampler.put()
    peer.faults.append(fault.silence)
    process = ship(peer.url, "--timeout", "60")
    wait_until(lambda: bool(peer.requests))
    code, _ = process.stop(signal.SIGINT)
    assert code == 0
    assert len(sampler.spool.pending()) == 1


def test_outage_and_return(peer, sampler, ship, wait_until, fault):
    peer.faults.extend([fault.status(503)] * 2)
    for _ in range(3):
        sampler.put()
    process = ship(peer.url)
    wait_until(lambda: not sampler.spool.pending())
    _, said = process.stop()
    assert "try again later (HTTP 503 because); kept in the spool" in said
    assert "delivering again after" in said
    assert peer.counts == sampler.counts
    assert peer.lost_batches == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--url", "http://127.0.0.1:1"], "token_file is not set"),
        (["--token-file", "/nonexistent"], "url is not set"),
        (["--url", "http://h", "--token-file", "/nonexistent"], "cannot read the token file"),
        (["--url", "gopher://h", "--token-file", "/nonexistent"], "url is 'gopher://h'"),
        (["--url", "http://h", "--token-file", "/dev/null"], "must hold one line"),
        (["--timeout", "0"], "timeout_s is '0'"),
    ],
)
def test_a_wrong_configuration_is_exit_2_and_one_clear_message(tmp_path, arguments, words):
    done = subprocess.run(
        [sys.executable, "-m", "node_agent", "ship", "--spool-dir", str(tmp_path), *arguments],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[4],
        check=False,
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_plain_http_loads_neither_ssl_nor_asyncio_nor_the_sampler(peer):
    code = (
        "import sys\n"
        "from node_agent.commands import ship\n"
        "from node_agent.shipper.client import Client\n"
        "from pathlib import Path\n"
        f"Client({peer.url!r}, Path('/x'), None, 1.0)\n"
        "heavy = {'ssl', 'asyncio', 'hashlib', 'logging', 'ctypes', 'node_agent.sampler',"
        " 'node_agent.kernel', 'node_agent.collectors'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[4],
        check=True,
    )
    assert done.stdout == "[]\n"


def test_https_with_its_own_ca(peer, tls_peer, certificate, sampler, ship, wait_until):
    sampler.put()
    distrusting = ship(tls_peer(certificate))
    wait_until(lambda: (sampler.spool.read_status("shipper") or {}).get("state") == "waiting")
    _, said = distrusting.stop()
    assert "certificate verify failed" in said
    assert peer.counts == {}
    ship(tls_peer(certificate), "--ca-file", str(certificate.parent / "ca.pem"))
    wait_until(lambda: not sampler.spool.pending())
    assert peer.counts == sampler.counts
