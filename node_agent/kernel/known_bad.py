"""The list of kernels that the agent stays away from: known_bad.toml beside this file."""

import os
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from node_agent.kernel.errors import KernelListError

LIST = Path(__file__).parent / "known_bad.toml"
_UBUNTU = Path("/proc/version_signature")
_VERSION = re.compile(r"^(\d+)\.(\d+)(?:\.(\d+))?")


class BadKernel(NamedTuple):
    """Versions from `start` on, before `end`: (major, minor, patch)."""

    start: tuple[int, int, int]
    end: tuple[int, int, int]
    reason: str
    source: str


class KernelVersion(NamedTuple):
    """Upstream's version; `patch` is None where the distribution doesn't tell."""

    major: int
    minor: int
    patch: int | None


def read_list(path: Path = LIST) -> list[BadKernel]:
    """Every entry. Raises KernelListError."""
    toml: Any = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        return [
            BadKernel(
                _parse(entry["from"]), _parse(entry["until"]), entry["reason"], entry["source"]
            )
            for entry in toml.loads(path.read_text())["kernel"]
        ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise KernelListError(
            "The list of known bad kernels cannot be read", f"{path}: {error}", "Install it again."
        ) from error


def find_bad(version: KernelVersion | None, entries: list[BadKernel]) -> str:
    """Why this version is on the list, and where that is written; empty when it isn't."""
    if version is None:
        return ""
    lowest = (version.major, version.minor, version.patch or 0)
    highest = lowest if version.patch is not None else (version.major, version.minor, 1 << 30)
    for entry in entries:
        if entry.start <= lowest and highest < entry.end:
            return f"{entry.reason}; see {entry.source}"
    return ""


def running_version() -> KernelVersion | None:
    """The version of this kernel; None when it can't be told."""
    system = os.uname()
    try:
        signature = _UBUNTU.read_text()
    except OSError:
        signature = ""
    return tell_version(system.release, system.version, signature)


def tell_version(release: str, version: str, signature: str) -> KernelVersion | None:
    """Upstream's version from `uname -r`, `uname -v` and Ubuntu's /proc/version_signature.

    Debian's release ends in .0 whatever the patch level, which its version has ("Debian
    6.1.176-1"); Ubuntu's signature has it as the last word.
    """
    told = signature.split()[-1] if signature.split() else ""
    debian = re.search(r"\bDebian (\d+\.\d+\.\d+)", version)
    found = (
        _VERSION.match(told) or (debian and _VERSION.match(debian[1])) or _VERSION.match(release)
    )
    if not found:
        return None
    patch = None if found[3] is None else int(found[3])
    certain = bool(told or debian) or patch != 0 or "-" not in release
    return KernelVersion(int(found[1]), int(found[2]), patch if certain else None)


def _parse(text: str) -> tuple[int, int, int]:
    found = _VERSION.match(text)
    if not found:
        raise ValueError(f"{text!r} is no kernel version")
    return int(found[1]), int(found[2]), int(found[3] or 0)
