"""Whom the kernel program must not sample: entries of its map, and keeping them up to date.

Names and paths are compared by hash (bpf/exclude.h), so a unit or a file need not exist yet. What
can change is who a user's name stands for, where a symbolic link leads and what is mounted: that
is looked up again by `refresh`.
"""

import ctypes
import os
import pwd
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from node_agent.exclusions import ExcludeConfig, path_parts
from node_agent.kernel.cgroup_roots import read_cgroup_roots
from node_agent.kernel.errors import MapError
from node_agent.kernel.libbpf import library
from node_agent.kernel.mounts import place_in_file_system, read_mounts
from node_agent.kernel.structs import (
    EXCLUDE_CGROUP,
    EXCLUDE_EXECUTABLE_NAME,
    EXCLUDE_EXECUTABLE_PATH,
    EXCLUDE_UNIT,
    EXCLUDE_USER,
    ExclusionC,
    SettingsC,
)

REFRESH_S = 30.0
_MASK = (1 << 64) - 1


class Exclusion(NamedTuple):
    """One entry of the map: struct exclusion of bpf/events.h."""

    kind: int
    id: int
    device: int = 0


def hash_name(name: str) -> int:
    """As hash_name() of bpf/exclude.h: over little-endian words, zeros behind the end."""
    data = os.fsencode(name)
    data += bytes(-len(data) % 8)
    value = 0
    for word in memoryview(data).cast("Q"):
        value = _mix(value, word)
    return value


def hash_path(parts: Iterable[str]) -> int:
    """As the kernel program does it: over the names' hashes, from the root on."""
    value = 0
    for part in parts:
        value = _mix(value, hash_name(part))
    return value


def _mix(value: int, word: int) -> int:
    value = (value ^ word) * 0x9E3779B97F4A7C15 & _MASK
    return value ^ value >> 32


def resolve(config: ExcludeConfig) -> tuple[set[Exclusion], list[str]]:
    """The entries of `config` on this host as it is now, and what could not be resolved (words)."""
    found = {Exclusion(EXCLUDE_CGROUP, hash_path(path_parts(path))) for path in config.cgroups}
    for unit in config.units:
        # systemd puts _ before names that could be taken for files of the cgroup: cpu.service
        found |= {Exclusion(EXCLUDE_UNIT, hash_name(name)) for name in (unit, f"_{unit}")}
    unresolved: list[str] = []
    found |= set(_users(config.users, unresolved))
    found |= set(_executables(config.executables, unresolved))
    return found, unresolved


def _users(users: Iterable[str], unresolved: list[str]) -> Iterator[Exclusion]:
    for user in users:
        try:
            user_id = int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
        except KeyError:
            unresolved.append(f"there is no user {user}")
            continue
        yield Exclusion(EXCLUDE_USER, user_id)


def _executables(executables: Iterable[str], unresolved: list[str]) -> Iterator[Exclusion]:
    mounts = None
    for executable in executables:
        if not executable.startswith("/"):
            yield Exclusion(EXCLUDE_EXECUTABLE_NAME, hash_name(executable))
            continue
        mounts = mounts or read_mounts()
        place = place_in_file_system(os.path.realpath(executable), mounts)
        try:
            if place is None:
                raise ValueError
            device, path = place
            yield Exclusion(EXCLUDE_EXECUTABLE_PATH, hash_path(path_parts(path)), device)
        except ValueError:
            unresolved.append(f"{executable} lies too deep in its file system")


class Exclusions:
    """The configured exclusions on this host. `unresolved` tells in words what has no effect."""

    def __init__(self, config: ExcludeConfig) -> None:
        self.config = config
        self._held: set[Exclusion] = set()
        self._fd: int | None = None
        self._refresh_at = 0.0
        self.unresolved: list[str] = []

    @property
    def max_entries(self) -> int:
        """Enough for every entry that there can be, once more for what they change into."""
        config = self.config
        single = len(config.users) + len(config.executables) + len(config.cgroups)
        return max(1, 2 * (single + 2 * len(config.units)))

    def configure(self, settings: SettingsC) -> None:
        """Tell the program which kinds there are, and where cgroup paths begin."""
        config = self.config
        paths = any(executable.startswith("/") for executable in config.executables)
        names = any(not executable.startswith("/") for executable in config.executables)
        settings.exclusions = (
            EXCLUDE_USER * bool(config.users)
            | EXCLUDE_UNIT * bool(config.units)
            | EXCLUDE_CGROUP * bool(config.cgroups)
            | EXCLUDE_EXECUTABLE_NAME * names
            | EXCLUDE_EXECUTABLE_PATH * paths
        )
        if config.units or config.cgroups:
            roots = read_cgroup_roots()
            settings.cgroup_root_id = roots.v2_id
            settings.v1_cgroup_root_id = roots.v1_id
            settings.v1_hierarchy = roots.v1_hierarchy

    def enforce(self, fd: int) -> None:
        """Fill the program's map; to be done before it is attached. Raises MapError."""
        self._fd = fd
        self._held = set()
        self.refresh()

    def refresh(self) -> None:
        """Look up again, at most every REFRESH_S, and bring the map up to date."""
        now = time.monotonic()
        if self._fd is None or not self.config or (self._held and now < self._refresh_at):
            return
        self._refresh_at = now + REFRESH_S
        wanted, self.unresolved = resolve(self.config)
        for one in wanted - self._held:  # first: an entry that changed must not be missing
            self._set(self._fd, one)
        for one in self._held - wanted:
            key = ExclusionC(one.id, one.device, one.kind)
            library().bpf_map_delete_elem(self._fd, ctypes.byref(key))
        self._held = wanted

    def _set(self, fd: int, one: Exclusion) -> None:
        key, value = ExclusionC(one.id, one.device, one.kind), ctypes.c_uint32(1)
        if library().bpf_map_update_elem(fd, ctypes.byref(key), ctypes.byref(value), 0):
            raise MapError(
                "Cannot exclude as configured",
                os.strerror(ctypes.get_errno()),
                "Nothing is sampled rather than too much; start the agent again.",
            )
