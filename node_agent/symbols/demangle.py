"""Demangled C++ names by the C++ runtime itself (`__cxa_demangle`, Itanium C++ ABI), where
libstdc++ is installed; `wire.function_names` makes them readable."""

import ctypes
from functools import cache

from wire.function_names import readable

MAX_NAME_BYTES = 4_096


def load_runtime() -> None:
    """Load what `demangle` needs: a process that may open no files any more can't."""
    _runtime()
    _libc()


def demangle(name: str) -> str:
    """The readable form of `name` (C++, Rust, Go), or `name`."""
    return name if len(name) > MAX_NAME_BYTES else readable(name, demangle_cpp)


def demangle_cpp(name: str) -> str | None:
    """The whole C++ name of a mangled one, None when it is none or there is no libstdc++."""
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
