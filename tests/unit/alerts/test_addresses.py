"""Which addresses a webhook may go to."""

import socket

import pytest

from aggregator.alerts.addresses import checked_addresses, is_public
from aggregator.alerts.errors import RefusedAddressError, UnreachableError


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff02::1", False),
        # An IPv4 address in the clothes of IPv6.
        ("::ffff:10.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::5db8:d822", True),
        ("2002:7f00:1::", False),
    ],
)
def test_only_addresses_of_the_internet_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "0x7f000001", "2130706433"])
def test_private_hosts_are_refused_however_they_are_written(host: str) -> None:
    with pytest.raises(RefusedAddressError, match="only private addresses"):
        checked_addresses(host, 80, False, 300)


def test_private_hosts_are_reached_where_that_is_allowed() -> None:
    assert checked_addresses("127.0.0.1", 80, True, 300) == ["127.0.0.1"]


def test_every_address_of_a_name_is_given_once() -> None:
    known = {str(answer[4][0]) for answer in socket.getaddrinfo("localhost", 80)}
    found = checked_addresses("localhost", 80, True, 300)
    assert sorted(found) == sorted(known)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 300, "x\0y"])
def test_names_that_do_not_resolve_are_a_failed_delivery(host: str) -> None:
    with pytest.raises(UnreachableError, match="cannot be resolved"):
        checked_addresses(host, 80, True, 300)
