"""What the configuration excludes from profiling: `[agent.exclude]`. Pure."""

from collections.abc import Callable
from typing import Any

import msgspec

from node_agent.settings import SettingError, nearest

MAX_ENTRIES = 256  # of each list
# What the kernel program compares, see bpf/events.h.
MAX_NAME_BYTES = 126
MAX_PATH_PARTS = 20
_MAX_USER_ID = (1 << 32) - 2
_UNIT_SUFFIXES = (".service", ".scope", ".slice")
_GLOB = frozenset("*?[]")


class ExcludeConfig(msgspec.Struct, frozen=True):
    """Who is never sampled; each list may be empty."""

    units: tuple[str, ...] = ()  # systemd units with their suffix, all below them included
    users: tuple[str, ...] = ()  # names, or ids in digits
    executables: tuple[str, ...] = ()  # absolute paths, or names of files anywhere
    cgroups: tuple[str, ...] = ()  # absolute paths as below /sys/fs/cgroup, all below included

    def __bool__(self) -> bool:
        return bool(self.units or self.users or self.executables or self.cgroups)


def check_exclude(table: Any) -> ExcludeConfig:
    """The checked table. Raises SettingError with a line for each fault."""
    if not isinstance(table, dict):
        raise SettingError(f"exclude is {table!r}; it must be a table of lists")
    faults: list[str] = []
    lists: dict[str, tuple[str, ...]] = {}
    for name, entries in table.items():
        if name not in _ENTRIES:
            faults.append(f"[agent.exclude] {name} is not a setting{nearest(name, _ENTRIES)}")
            continue
        if not isinstance(entries, list) or len(entries) > MAX_ENTRIES:
            faults.append(
                f"exclude {name} is {entries!r}; it must be a list of at most {MAX_ENTRIES} texts"
            )
            continue
        parse, allowed = _ENTRIES[name]
        checked = []
        for entry in entries:
            try:
                checked.append(parse(entry))
            except ValueError:
                faults.append(f"exclude {name} has {entry!r}; it must be {allowed}")
        lists[name] = tuple(dict.fromkeys(checked))
    if faults:
        raise SettingError("\n".join(faults))
    return ExcludeConfig(**lists)


def path_parts(path: str) -> list[str]:
    """The names of an absolute path. Raises ValueError for one that cannot be compared."""
    parts = [part for part in path.split("/") if part]
    if not path.startswith("/") or not 0 < len(parts) <= MAX_PATH_PARTS:
        raise ValueError
    for part in parts:
        _name(part)
    return parts


def _name(text: Any) -> str:
    if not isinstance(text, str) or "\0" in text or "/" in text or text in (".", ".."):
        raise ValueError
    if not 0 < len(text.encode("utf-8", "surrogateescape")) <= MAX_NAME_BYTES:
        raise ValueError
    return text


def _unit(text: Any) -> str:
    name = _name(text)
    if _GLOB & set(name):
        raise ValueError
    return name if name.endswith(_UNIT_SUFFIXES) else _name(f"{name}.service")


def _user(entry: Any) -> str:
    if isinstance(entry, bool) or not isinstance(entry, str | int):
        raise ValueError
    text = str(entry)
    if text.isdecimal() and text.isascii():
        if int(text) > _MAX_USER_ID:
            raise ValueError
        return str(int(text))
    if not text.isprintable() or text.startswith("-"):
        raise ValueError
    return _name(text)


def _executable(text: Any) -> str:
    if isinstance(text, str) and text.startswith("/"):
        return "/" + "/".join(path_parts(text))
    return _name(text)


def _cgroup(text: Any) -> str:
    if not isinstance(text, str):
        raise ValueError
    return "/" + "/".join(path_parts(text))


_ENTRIES: dict[str, tuple[Callable[[Any], str], str]] = {
    "units": (_unit, "the name of one systemd unit, without * or ?"),
    "users": (_user, "the name of a user, or an id of 0 to 4294967294"),
    "executables": (
        _executable,
        f"the name of a file or an absolute path (at most {MAX_PATH_PARTS} parts of "
        f"{MAX_NAME_BYTES} bytes)",
    ),
    "cgroups": (
        _cgroup,
        f"an absolute path below /sys/fs/cgroup (at most {MAX_PATH_PARTS} parts of "
        f"{MAX_NAME_BYTES} bytes)",
    ),
}
