"""Whether a process is one that must not be read, as it is now.

The kernel program leaves out who is excluded when the sample is taken. But a sample is made sense
of later, and the process may have become an excluded one by then: a service manager's child that
moved into its unit and started its program, for example. What /proc says is then no longer of the
sample.
"""

import os
import pwd
import re
from collections.abc import Iterator

from node_agent.exclusions import ExcludeConfig
from node_agent.processes.mappings import read_process_file

_REAL_USER = re.compile(rb"^Uid:\s+(\d+)", re.M)
_HIERARCHIES = ("", "name=systemd")  # that hold units: v2, and v1 as systemd mounts it


class ExcludedProcesses:
    """The processes that `config` excludes."""

    def __init__(self, config: ExcludeConfig) -> None:
        self._config = config

    def covers(self, tgid: int) -> bool:
        """Whether process `tgid` is excluded now; True where that can't be told, as of one that has
        ended. Reads /proc: needs OTHER_PROCESSES."""
        if not self._config:
            return False
        try:
            return self._is_user(tgid) or self._is_executable(tgid) or self._is_in_cgroup(tgid)
        except OSError:
            return True

    def _is_user(self, tgid: int) -> bool:
        if not self._config.users:
            return False
        found = _REAL_USER.search(read_process_file(tgid, "status"))
        return found is None or int(found[1]) in _user_ids(self._config.users)

    def _is_executable(self, tgid: int) -> bool:
        if not self._config.executables:
            return False
        link = os.readlink(f"/proc/{tgid}/exe")  # noqa: PTH115 (a link, never followed)
        path = link.removesuffix(" (deleted)")
        return any(
            path == os.path.realpath(one) if one.startswith("/") else path.endswith(f"/{one}")
            for one in self._config.executables
        )

    def _is_in_cgroup(self, tgid: int) -> bool:
        if not (self._config.units or self._config.cgroups):
            return False
        text = read_process_file(tgid, "cgroup").decode("utf-8", "surrogateescape")
        return is_cgroup_excluded(text, self._config)


def is_cgroup_excluded(text: str, config: ExcludeConfig) -> bool:
    """Whether a process with this text of /proc/PID/cgroup is in an excluded unit or cgroup."""
    return any(
        not names.isdisjoint(config.units)
        or any(path == one or path.startswith(f"{one}/") for one in config.cgroups)
        for path, names in _cgroups(text)
    )


def _cgroups(text: str) -> Iterator[tuple[str, set[str]]]:
    """Path of each cgroup that may be a unit's, and the names in it as units have them: systemd
    puts a _ before those that could be taken for files."""
    for line in text.split("\n"):  # the one character that no name of a cgroup holds
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers in _HIERARCHIES:
            names = path.split("/")
            yield path, {*names, *(name.removeprefix("_") for name in names)}


def _user_ids(users: tuple[str, ...]) -> Iterator[int]:
    for user in users:
        try:
            yield int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
        except KeyError:
            continue
