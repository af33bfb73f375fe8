"""Which CPUs there are."""

import os
from functools import lru_cache

_FOLDER = "/sys/devices/system/cpu/"
_MAX_BYTES = 4096  # a page, as all of sysfs


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """CPU numbers of a kernel list such as `0-3,8`; empty for an empty list."""
    cpus: list[int] = []
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            cpus.extend(range(int(first), int(last or first) + 1))
    return tuple(cpus)


def online_cpus() -> tuple[int, ...]:
    """Asked for several times an interval: a CPU can come or go at any time."""
    return _parsed(_read("online"))


def possible_cpus() -> tuple[int, ...]:
    """Every CPU that may ever come; per-CPU maps have one value for each."""
    return _parsed(_read("possible"))


@lru_cache(maxsize=4)
def _parsed(text: bytes) -> tuple[int, ...]:
    return parse_cpu_list(text.decode())


def _read(name: str) -> bytes:
    descriptor = os.open(_FOLDER + name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _MAX_BYTES)
    finally:
        os.close(descriptor)
