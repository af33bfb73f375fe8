"""Gives memory back to the kernel that a burst of work has used.

glibc takes blocks of 128 KiB and more straight from the kernel and gives them back when they are
freed; but each time it does so it raises that size, up to 32 MiB, and what it keeps at the end of
its heap to twice that (man 3 mallopt, "dynamic mmap threshold"). A few messages of some MB, one
after the other, and the heap keeps their size for good. A size that was set stays.

Python's own allocator, for objects of up to 512 bytes, has arenas of 1 MiB that it gives back when
they are empty; for it there is nothing to set.
"""

from contextlib import suppress

_M_TRIM_THRESHOLD = -1  # of malloc.h
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
DIRECT_BYTES = 128 << 10  # blocks of this size come straight from the kernel
KEPT_BYTES = 128 << 10  # free memory at the heap's end


def bound_heap() -> None:
    """From now on what was freed goes back to the kernel soon. Where the C library has no such
    settings (musl) nothing happens."""
    for setting, value in (
        (_M_MMAP_THRESHOLD, DIRECT_BYTES),
        (_M_TRIM_THRESHOLD, KEPT_BYTES),
        (_M_ARENA_MAX, 1),
    ):
        _call("mallopt", setting, value)


def give_back() -> None:
    """Give back the free pages in the middle of the heap too; takes well under a millisecond."""
    _call("malloc_trim", 0)


def _call(function: str, *arguments: int) -> None:
    # Not `ctypes`: the shipper has no other use for it, and it costs 0.3 MB.
    with suppress(ImportError, AttributeError, OSError):
        import _ctypes

        library = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]  # of this process
        _ctypes.call_function(_ctypes.dlsym(library, function), arguments)
