"""Symbol names as people write them: demangled C++ and Rust.

`pydemumble` wraps LLVM's demanglers (Itanium C++, both manglings of Rust). It is native code that
reads hostile text, so this module is used only in the parser's child process.
"""

import pydemumble  # type: ignore[import-untyped]  # ships no stubs

from aggregator.symbols.names import clean

_PREFIXES = ("_Z", "_R", "__Z", "___Z")
_MOST_MANGLED_CHARS = 10_000  # beyond that, time and memory of a demangler are anybody's guess


def readable(symbol: str) -> str:
    """`symbol` demangled where it is mangled, and clean."""
    if symbol.startswith(_PREFIXES) and len(symbol) <= _MOST_MANGLED_CHARS:
        return clean(pydemumble.demangle(symbol) or symbol)
    return clean(symbol)
