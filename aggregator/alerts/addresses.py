"""Which address of a webhook's host is connected to.

The host is resolved once and the connection goes to the very address that was checked; otherwise a
second look-up could lead it elsewhere (DNS rebinding).
"""

import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from aggregator.alerts.errors import DeliveryError, RefusedAddressError

_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


def checked_address(host: str, port: int, allow_private: bool) -> str:
    """An address of `host` to connect to.

    Raises RefusedAddressError when all of them are private and `allow_private` is not set, and
    DeliveryError when the name does not resolve.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DeliveryError(f"{host} cannot be resolved: {error}") from error
    addresses = [str(sockaddr[0]) for _, _, _, _, sockaddr in found]
    for address in addresses:
        if allow_private or is_public(address):
            return address
    raise RefusedAddressError(
        f"{host} has only private addresses ({', '.join(sorted(set(addresses)))})"
    )


def is_public(address: str) -> bool:
    """Whether `address` (perhaps with a zone, `%eth0`) is a unicast address of the internet."""
    parsed = ip_address(address.partition("%")[0])
    judged: list[IPv4Address | IPv6Address] = [parsed]
    if isinstance(parsed, IPv6Address):
        judged = [*_embedded(parsed)]
        if parsed.ipv4_mapped is None:
            judged.append(parsed)
    return all(each.is_global and not each.is_multicast for each in judged)


def _embedded(address: IPv6Address) -> list[IPv4Address]:
    """The IPv4 addresses that a gateway would make of an IPv6 address."""
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        found.append(IPv4Address(int(address) & 0xFFFF_FFFF))
    return [each for each in found if each is not None]
