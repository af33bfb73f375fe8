"""Which addresses of a webhook's host are connected to.

The host is resolved once and the connection goes to the very addresses that were checked; otherwise
a second look-up could lead it elsewhere (DNS rebinding).
"""

import socket
import threading
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from aggregator.alerts.errors import RefusedAddressError, UnreachableError

_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


def checked_addresses(host: str, port: int, allow_private: bool, timeout_s: float) -> list[str]:
    """The addresses of `host` to connect to, one at least, in the resolver's order.

    Raises RefusedAddressError when all of them are private and `allow_private` is not set, and
    UnreachableError when the name does not resolve in time.
    """
    addresses = _resolve(host, port, timeout_s)
    allowed = [address for address in addresses if allow_private or is_public(address)]
    if not allowed:
        words = ", ".join(sorted(addresses))
        raise RefusedAddressError(f"{host} has only private addresses ({words})")
    return allowed


def _resolve(host: str, port: int, timeout_s: float) -> list[str]:
    """In a thread, because a look-up has no limit of its own and cannot be ended."""
    found: list[str] = []
    failed: list[Exception] = []

    def look_up() -> None:
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found.extend(dict.fromkeys(str(answer[4][0]) for answer in answers))
        except (OSError, UnicodeError, ValueError) as error:
            failed.append(error)

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if not found:
        words = str(failed[0]) if failed else f"no answer within {timeout_s:.0f} s"
        raise UnreachableError(f"{host} cannot be resolved: {words}")
    return found


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
