"""Which CPUs there are."""

from pathlib import Path

_FOLDER = Path("/sys/devices/system/cpu")


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """CPU numbers of a kernel list such as `0-3,8`; empty for an empty list."""
    cpus: list[int] = []
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            cpus.extend(range(int(first), int(last or first) + 1))
    return tuple(cpus)


def online_cpus() -> tuple[int, ...]:
    return parse_cpu_list((_FOLDER / "online").read_text())


def possible_cpus() -> tuple[int, ...]:
    """Every CPU that may ever come; per-CPU maps have one value for each."""
    return parse_cpu_list((_FOLDER / "possible").read_text())
