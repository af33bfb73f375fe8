"""Readable names of C++ and Rust functions.

C++ names are undone by the C++ runtime itself (`__cxa_demangle`, Itanium C++ ABI) where
libstdc++ is installed; names that it does not know stay as they are. Rust's older mangling is
C++'s with its own escapes; its newer one (`_R...`) stays mangled.
"""

import ctypes
import re
from functools import cache

_RUST_HASH = re.compile(r"::h[0-9a-f]{16}$")
_RUST_ESCAPES = {
    "$SP$": "@",
    "$BP$": "*",
    "$RF$": "&",
    "$LT$": "<",
    "$GT$": ">",
    "$LP$": "(",
    "$RP$": ")",
    "$C$": ",",
}
_RUST_CODE_POINT = re.compile(r"\$u([0-9a-f]{1,6})\$")
MAX_NAME_BYTES = 4_096


def demangle(name: str) -> str:
    """The readable form of `name`, or `name`."""
    if not name.startswith("_Z") or len(name) > MAX_NAME_BYTES:
        return name
    text = _demangle_cpp(name)
    if text is None:
        return name
    return _tidy_rust(text) if _RUST_HASH.search(text) else text


def _demangle_cpp(name: str) -> str | None:
    runtime = _runtime()
    if runtime is None:
        return None
    status = ctypes.c_int()
    pointer = runtime.__cxa_demangle(name.encode(), None, None, ctypes.byref(status))
    if not pointer:
        return None
    try:
        return ctypes.string_at(pointer).decode("utf-8", "replace")
    finally:
        _libc().free(pointer)


def _tidy_rust(text: str) -> str:
    text = _RUST_HASH.sub("", text)
    for escape, plain in _RUST_ESCAPES.items():
        text = text.replace(escape, plain)
    text = _RUST_CODE_POINT.sub(lambda match: chr(min(int(match.group(1), 16), 0x10FFFF)), text)
    # An escape at the start of a component gets an underscore before it.
    return text.replace("..", "::").replace("::_<", "::<").removeprefix("_" if "<" in text else "")


@cache
def _runtime() -> ctypes.CDLL | None:
    try:
        runtime = ctypes.CDLL("libstdc++.so.6")
        function = runtime.__cxa_demangle
    except (OSError, AttributeError):
        return None
    function.restype = ctypes.c_void_p
    function.argtypes = (
        ctypes.c_char_p,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.POINTER(ctypes.c_int),
    )
    return runtime


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.free.argtypes = (ctypes.c_void_p,)
    return libc
