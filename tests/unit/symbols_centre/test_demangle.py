"""Names for people."""

import pytest

from aggregator.symbols.demangle import readable


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("memcpy", "memcpy"),
        ("_ZN4shop4CartIlE5totalEl", "shop::Cart<long>::total"),
        ("_ZN12_GLOBAL__N_13fooEv", "(anonymous namespace)::foo"),
        ("_ZN4till5inner4burn17h2c56e8bf7a813eb6E", "till::inner::burn"),
        ("_RNvNtCs1234_4till5inner4burn", "till::inner::burn"),
        ("_Z", "_Z"),
        ("_ZN4broken", "_ZN4broken"),
        ("_Register", "_Register"),
        ("main.main", "main.main"),
        ("a\0b\nc", "a\ufffdb\ufffdc"),
        ("x" * 1_000, "x" * 1_000),
        ("x" * 1_001, "x" * 999 + "…"),
        ("_Z" + "9" * 20_000, "_Z" + "9" * 997 + "…"),
    ],
)
def test_names_are_readable(symbol: str, name: str) -> None:
    assert readable(symbol) == name
