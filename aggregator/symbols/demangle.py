"""Symbol names as people write them, at the centre.

`pydemumble` wraps LLVM's demangler of C++. It is native code that reads hostile text, so this
module is used only in the parser's child process.
"""

import pydemumble  # type: ignore[import-untyped]  # ships no stubs

from aggregator.symbols.names import clean
from wire import function_names


def readable(symbol: str) -> str:
    """`symbol` demangled where it is mangled, and clean."""
    return clean(function_names.readable(symbol, _demangle_cpp))


def kernel_name(symbol: str) -> str:
    """A kernel function as the kernel's own tools write it, only Rust is demangled."""
    return readable(symbol) if symbol.startswith("_R") else clean(symbol)


def _demangle_cpp(symbol: str) -> str | None:
    text: str = pydemumble.demangle(symbol)
    return text or None
