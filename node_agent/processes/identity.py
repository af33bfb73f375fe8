"""Who a process is: the labels of its samples.

service: the systemd unit, else the container, else the executable; "kernel" for kernel threads.
executable: base name of the program. unit, container: from /proc/PID/cgroup, where they apply.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from node_agent.generations import GenerationCache
from wire.limits import MAX_LABEL_BYTES

KERNEL = "kernel"
OTHER = "other"
MAX_VALUES = 1_000  # distinct values a label in one run; the excess is "other", counted
_CACHED_PROCESSES = 4_000
_CONTAINER = re.compile(
    r"^(?:docker|libpod|crio|cri-containerd|containerd|nerdctl)?[-:]?([0-9a-f]{64})(?:\.scope)?$"
)
_NAMED_CONTAINER = re.compile(r"^(?:lxc\.payload\.|machine-)(.+?)(?:\.scope)?$")
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")


class CgroupNames(NamedTuple):
    """What a cgroup path tells; an empty string where it does not."""

    unit: str
    container: str


def parse_cgroup(text: str) -> CgroupNames:
    """Unit and container of the text of /proc/PID/cgroup (format: man 7 cgroups).

    The deepest service or container counts. With both hierarchies the v2 line counts when it says
    something, else the v1 line of systemd, else any line.
    """
    paths = _paths(text)
    best = ["v2", "name=systemd", *paths]
    for controllers in best:
        names = _names_of_path(paths.get(controllers, ""))
        if names.unit or names.container:
            return names
    return CgroupNames("", "")


def kernel_thread_name(name: str) -> str:
    """The kind of a kernel thread: "kworker" of "kworker/0:1-events"."""
    return name.split("/", 1)[0] or KERNEL


class Identities:
    """Labels of processes, cached; every label has a bounded number of values."""

    def __init__(self, extra: dict[str, str]) -> None:
        self._extra = {key: _cut(value) for key, value in extra.items()}
        self._cache: GenerationCache[tuple[int, int, int, int], dict[str, str]] = GenerationCache(
            _CACHED_PROCESSES
        )
        self._by_cgroup: GenerationCache[int, CgroupNames] = GenerationCache(_CACHED_PROCESSES)
        self._values: dict[str, set[str]] = {}
        self.folded = 0  # label values that became "other"

    def labels(
        self,
        process: tuple[int, int, int],
        cgroup_id: int,
        thread_name: str,
        is_kernel_thread: bool,
    ) -> dict[str, str]:
        """Labels of `process` (tgid, start_ns, exec_id); the same dict object while it is cached.

        `thread_name` stands in for the executable of a process that has already ended.
        """
        key = (*process, cgroup_id)
        labels = self._cache.get(key)
        if labels is None:
            labels = (
                self._kernel_labels(thread_name)
                if is_kernel_thread
                else self._read_labels(process[0], cgroup_id, thread_name)
            )
            self._cache.put(key, labels)
        return labels

    def rotate(self) -> None:
        """Forget processes that were not seen since the last call."""
        self._cache.rotate()
        self._by_cgroup.rotate()

    def _kernel_labels(self, thread_name: str) -> dict[str, str]:
        name = self._bounded("executable", kernel_thread_name(thread_name))
        return {**self._extra, "service": KERNEL, "executable": name}

    def _read_labels(self, tgid: int, cgroup_id: int, thread_name: str) -> dict[str, str]:
        names = self._read_cgroup(tgid, cgroup_id)
        executable = _read_executable(tgid) or thread_name or "[unknown]"
        found = {
            "service": names.unit or names.container or executable,
            "executable": executable,
            "unit": names.unit,
            "container": names.container,
        }
        labels = {key: self._bounded(key, value) for key, value in found.items() if value}
        return {**self._extra, **labels}

    def _read_cgroup(self, tgid: int, cgroup_id: int) -> CgroupNames:
        try:
            text = Path(f"/proc/{tgid}/cgroup").read_text(errors="replace")
        except OSError:
            # It has ended: another process of the same cgroup may have told us before.
            return self._by_cgroup.get(cgroup_id) or CgroupNames("", "")
        names = parse_cgroup(text)
        # The kernel program knows the v2 cgroup only: where v1 tells the unit, many share that.
        if names == _names_of_path(_paths(text).get("v2", "")):
            self._by_cgroup.put(cgroup_id, names)
        return names

    def _bounded(self, label: str, value: str) -> str:
        value = _cut(value)
        values = self._values.setdefault(label, set())
        if value not in values:
            if len(values) >= MAX_VALUES:
                self.folded += 1
                return OTHER
            values.add(value)
        return value


def _paths(text: str) -> dict[str, str]:
    """Paths by their controllers; that of the second version by "v2"."""
    paths = {}
    for line in text.splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        paths["v2" if hierarchy == "0" else controllers] = path
    return paths


def _names_of_path(path: str) -> CgroupNames:
    unit = container = ""
    for part in path.split("/"):
        if part.endswith(".service"):
            unit = _unescape(part.removesuffix(".service"))
            continue
        last = part.rsplit(":", 1)[-1] if part.count(":") == 2 else part
        found = _CONTAINER.match(last)
        named = _NAMED_CONTAINER.match(part)
        if found or named:
            container = found.group(1)[:12] if found else ""
            container = _unescape(named.group(1)) if named else container
            unit = ""  # the unit above a container is its runtime; one inside it counts
    return CgroupNames(unit, container)


def _read_executable(tgid: int) -> str:
    try:
        target = os.readlink(f"/proc/{tgid}/exe")  # noqa: PTH115 (a link, never followed)
    except OSError:
        return ""
    name = target.removesuffix(" (deleted)").rsplit("/", 1)[-1]
    # A program run from memory is called as its maker liked, often by a random number.
    return "memfd" if name.startswith("memfd:") else name


def _unescape(name: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match.group(1), 16)), name)


def _cut(value: str) -> str:
    data = value.encode("utf-8", "replace")[:MAX_LABEL_BYTES]
    return data.decode("utf-8", "ignore").replace("\0", "")
