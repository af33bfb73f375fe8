"""Deliveries by way of a real HTTP proxy on loopback."""

from pathlib import Path

import pytest

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the proxy variables of whoever runs the tests."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def passed(tmp_path: Path, address: str) -> bool:
    """Whether the proxy logged a request for `address`."""
    return address in (tmp_path / "proxy.log").read_text()


def address(url: str) -> str:
    return url.split("//")[1]


def test_plain_http_goes_through_the_proxy_of_the_environment(
    peer, sampler, ship, wait_until, forward_proxy, monkeypatch, tmp_path
) -> None:
    proxy = forward_proxy()
    monkeypatch.setenv("http_proxy", f"http://{proxy}")
    for _ in range(3):
        sampler.put()
    process = ship(peer.url)
    wait_until(lambda: not sampler.spool.pending())
    _, said = process.stop()
    assert f"through the proxy {proxy}" in said
    assert peer.counts == sampler.counts
    wait_until(lambda: passed(tmp_path, address(peer.url)))


def test_tls_goes_through_a_tunnel_and_the_certificate_is_checked(
    peer, tls_peer, certificate, sampler, ship, wait_until, forward_proxy, monkeypatch, tmp_path
) -> None:
    monkeypatch.setenv("https_proxy", f"http://{forward_proxy()}")
    url = tls_peer(certificate)
    sampler.put()
    distrusting = ship(url)
    wait_until(lambda: (sampler.spool.read_status("shipper") or {}).get("state") == "waiting")
    _, said = distrusting.stop()
    assert "certificate verify failed" in said
    assert peer.counts == {}
    process = ship(url, "--ca-file", str(certificate.parent / "ca.pem"))
    wait_until(lambda: not sampler.spool.pending())
    process.stop()
    assert peer.counts == sampler.counts
    wait_until(lambda: passed(tmp_path, address(url)))
    assert "CONNECT" in (tmp_path / "proxy.log").read_text()


@pytest.mark.parametrize("secure", [False, True])
def test_a_proxy_that_wants_a_password(
    peer, tls_peer, certificate, sampler, ship, wait_until, forward_proxy, monkeypatch, secure
) -> None:
    proxy = forward_proxy("--basic-auth", "agent:p@ss")
    url = tls_peer(certificate) if secure else peer.url
    ca = ("--ca-file", str(certificate.parent / "ca.pem")) if secure else ()
    sampler.put()
    monkeypatch.setenv("FLAMEFLEET_PROXY", f"http://agent:wrong@{proxy}")
    denied = ship(url, *ca)
    wait_until(
        lambda: (sampler.spool.read_status("shipper") or {}).get("state") in ("waiting", "denied")
    )
    _, said = denied.stop()
    assert "407" in said
    assert "wrong" not in said
    assert len(sampler.spool.pending()) == 1
    monkeypatch.setenv("FLAMEFLEET_PROXY", f"http://agent:p%40ss@{proxy}")
    allowed = ship(url, *ca)
    wait_until(lambda: not sampler.spool.pending())
    _, said = allowed.stop()
    assert "p%40ss" not in said
    assert peer.counts == sampler.counts


@pytest.mark.parametrize("variables", [{"no_proxy": "127.0.0.0/8"}, {"FLAMEFLEET_PROXY": "direct"}])
def test_a_direct_connection_where_that_is_asked_for(
    peer, sampler, ship, wait_until, monkeypatch, variables
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # nobody listens there
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    sampler.put()
    ship(peer.url)
    wait_until(lambda: not sampler.spool.pending())
    assert peer.counts == sampler.counts


def test_a_proxy_that_is_away_is_waited_out(peer, sampler, ship, wait_until, monkeypatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    sampler.put()
    process = ship(peer.url)
    wait_until(lambda: (sampler.spool.read_status("shipper") or {}).get("state") == "waiting")
    _, said = process.stop()
    assert "through the proxy 127.0.0.1" in said
    assert "kept in the spool" in said
    assert len(sampler.spool.pending()) == 1


def test_a_proxy_that_cannot_be_used_is_said_at_the_start(ship, monkeypatch) -> None:
    monkeypatch.setenv("https_proxy", "socks5://user:secret@h")
    process = ship("https://centre.invalid")
    code, said = process.ended()
    assert code == 2
    assert "https_proxy names no HTTP proxy that can be used: socks5://h" in said
    assert "secret" not in said
