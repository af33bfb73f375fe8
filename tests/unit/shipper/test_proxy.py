"""Which proxy, by configuration and environment."""

import pytest

from node_agent.errors import ConfigError
from node_agent.shipper.proxy import DIRECT, Proxy, choose_proxy, is_spared, parse_proxy

HTTPS, HTTP = "https://centre.example:8443/x", "http://centre.example"


@pytest.mark.parametrize(
    ("url", "configured", "environ", "host"),
    [
        (HTTPS, None, {}, None),
        (HTTPS, None, {"https_proxy": "http://a:1"}, "a"),
        (HTTPS, None, {"HTTPS_PROXY": "http://a:1"}, "a"),
        (HTTPS, None, {"http_proxy": "http://a:1"}, None),
        (HTTPS, None, {"all_proxy": "http://a:1"}, "a"),
        (HTTPS, None, {"https_proxy": "http://a:1", "all_proxy": "http://b:1"}, "a"),
        (HTTP, None, {"http_proxy": "http://a:1"}, "a"),
        (HTTP, None, {"HTTP_PROXY": "http://a:1"}, None),  # a web server's clients set that
        (HTTP, None, {"https_proxy": "http://a:1"}, None),
        (HTTP, None, {"http_proxy": "a:1", "no_proxy": "centre.example"}, None),
        (HTTP, None, {"http_proxy": "a:1", "NO_PROXY": "centre.example"}, None),
        (HTTP, "http://c:1", {"http_proxy": "a:1", "no_proxy": "*"}, "c"),
        (HTTP, DIRECT, {"http_proxy": "a:1"}, None),
        (HTTP, None, {"http_proxy": ""}, None),
    ],
)
def test_the_choice(url, configured, environ, host) -> None:
    proxy = choose_proxy(url, configured, environ)
    assert (proxy.host if proxy else None) == host


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://proxy.example", Proxy("proxy.example", 3128, "")),
        ("proxy.example:8080", Proxy("proxy.example", 8080, "")),
        ("http://[::1]:8080/", Proxy("::1", 8080, "")),
        ("http://u:p%40ss@h:1", Proxy("h", 1, "Basic dTpwQHNz")),
        ("http://u@h:1", Proxy("h", 1, "Basic dTo=")),
    ],
)
def test_forms(text, proxy) -> None:
    assert parse_proxy(text, "proxy") == proxy


@pytest.mark.parametrize(
    "text",
    [
        "https://u:secret@h",
        "socks5://u:secret@h",
        "http://u:secret@",
        "http://u:secret@h:x",
        "http://u:secret@h:99999",
        "http://u:secret@[::",
        "http://u:secret@h\n",
    ],
)
def test_what_is_no_proxy_is_refused_without_its_password(text) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_proxy(text, "https_proxy")
    assert "https_proxy" in str(caught.value)
    assert "secret" not in str(caught.value) + caught.value.remedy


@pytest.mark.parametrize(
    ("host", "no_proxy", "spared"),
    [
        ("centre.example", "", False),
        ("centre.example", "*", True),
        ("centre.example", "example", True),
        ("centre.example", ".example", True),
        ("centre.example", "*.example", True),
        ("centre.example", "entre.example", False),
        ("Centre.Example.", "other, centre.example", True),
        ("centre.example", "centre.example:443", True),
        ("centre.example", "centre.example:80", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "192.168.0.0/16 10.1.2.3", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("centre.example", "10.0.0.0/8", False),
        ("::1", "[::1]", True),
        ("::1", "::1/128", True),
        ("centre.example", ",,", False),
    ],
)
def test_no_proxy(host, no_proxy, spared) -> None:
    assert is_spared(host, 443, no_proxy) is spared
