"""Which HTTP proxy a delivery goes through, from the configuration or the environment. Pure.

The variables are those of curl(1): https_proxy, http_proxy (in small letters only, as a web server
sets HTTP_PROXY from a request's header), all_proxy, no_proxy. `urllib.request` would do it too, for
two megabytes of imports.
"""

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from node_agent.errors import ConfigError

DIRECT = "direct"
_DEFAULT_PORT = 3128  # curl takes 1080, most others what squid listens on
_FORM = "http://[USER:PASSWORD@]HOST[:PORT]"


class Proxy(NamedTuple):
    """Where the proxy listens. `authorization` is the value of its header, or empty."""

    host: str
    port: int
    authorization: str


def choose_proxy(url: str, configured: str | None, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy for deliveries to `url`; None for a direct connection.

    `configured` is a proxy's URL or DIRECT and beats the environment. Raises ConfigError for a
    proxy that cannot be used.
    """
    if configured:
        return None if configured == DIRECT else parse_proxy(configured, "proxy")
    parts = urlsplit(url)
    names = ["http_proxy", "all_proxy", "ALL_PROXY"]
    if parts.scheme == "https":
        names = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
    name = next((name for name in names if environ.get(name)), None)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    spared = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if name is None or is_spared(parts.hostname or "", port, spared):
        return None
    return parse_proxy(environ[name], name)


def parse_proxy(text: str, source: str) -> Proxy:
    """The proxy that `text` (from the setting or variable `source`) names. Raises ConfigError,
    whose words never hold a password."""
    remedy = f"Write it as {_FORM}, or {DIRECT!r} in the configuration for none."
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port or _DEFAULT_PORT
    except ValueError as error:
        raise ConfigError(f"{source} names no proxy: {error}", remedy) from error
    if parts.scheme != "http" or not parts.hostname or not text.isprintable() or " " in text:
        what = f"{parts.scheme}://{parts.hostname or ''}"
        raise ConfigError(f"{source} names no HTTP proxy that can be used: {what}", remedy)
    authorization = ""
    if parts.username is not None:
        from binascii import b2a_base64

        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        authorization = "Basic " + b2a_base64(credentials, newline=False).decode()
    return Proxy(parts.hostname, port, authorization)


def is_spared(host: str, port: int, no_proxy: str) -> bool:
    """Whether `no_proxy` exempts a host: by its name or a domain above it, by its address or a
    network around it, by "*"; an entry with a port only for that port."""
    host = host.lower().rstrip(".")
    for entry in no_proxy.lower().replace(",", " ").split():
        name = entry
        if entry.count(":") == 1:
            name, _, only = entry.partition(":")
            if only != str(port):
                continue
        name = name.strip("[]").removeprefix("*.").lstrip(".")
        if entry == "*" or host == name or (name and host.endswith("." + name)):
            return True
        if "/" in entry and _is_in_network(host, entry):
            return True
    return False


def _is_in_network(host: str, network: str) -> bool:
    from ipaddress import ip_address, ip_network

    try:
        return ip_address(host) in ip_network(network, strict=False)
    except ValueError:
        return False
