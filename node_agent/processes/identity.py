"""Who a process is: the labels of its samples.

service: the systemd unit, else the container, else the executable; "kernel" for kernel threads.
executable: base name of the program; build_id: that of its file. container, runtime: from
/proc/PID/cgroup, where they apply. To these come the labels of the configuration.
"""

import os
import time
from collections.abc import Callable, Collection

from node_agent.faults import Faults
from node_agent.generations import GenerationCache
from node_agent.processes.cgroups import NOTHING, CgroupNames, parse_cgroup, parse_v2
from node_agent.processes.errors import ProcessGoneError
from node_agent.processes.mappings import check_start, read_process_file
from wire.fit import fit_text
from wire.limits import MAX_LABEL_BYTES

KERNEL = "kernel"
OTHER = "other"
LABELS = ("service", "executable", "container", "runtime", "build_id")
MAX_VALUES = 1_000  # distinct values a label an hour; the excess is "other", counted
VALUES_FOR_S = 3_600.0  # containers come and go: those of last week must not use up the room
_CACHED_PROCESSES = 4_000
ProcessId = tuple[int, int, int]  # tgid, start_ns, exec_id


def kernel_thread_name(name: str) -> str:
    """The kind of a kernel thread: "kworker" of "kworker/0:1-events"."""
    return name.split("/", 1)[0] or KERNEL


class Identities:
    """Labels of processes, cached; every label has a bounded number of values."""

    def __init__(
        self,
        extra: dict[str, str],
        main_build_id: Callable[[ProcessId], str] | None = None,
        faults: Faults | None = None,
    ) -> None:
        """`extra` are the labels of the configuration; `main_build_id` finds the build id (hex)
        of the program that a process runs, or returns "" where it can't be told. `faults` is the
        boundary around each process."""
        self._faults = faults or Faults()
        self._extra = {key: fit_text(value, MAX_LABEL_BYTES) for key, value in extra.items()}
        self._main_build_id = main_build_id
        self._cache: GenerationCache[tuple[int, int, int, int], dict[str, str]] = GenerationCache(
            _CACHED_PROCESSES
        )
        self._by_cgroup: GenerationCache[int, CgroupNames] = GenerationCache(_CACHED_PROCESSES)
        self._values: dict[str, set[str]] = {}
        self._values_since = time.monotonic()
        self.folded = 0  # label values that became "other"
        # Whether a process, by its tgid, is one by now that must not be read.
        self.is_excluded: Callable[[int], bool] = lambda _: False

    def labels(
        self,
        process: ProcessId,
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
            if is_kernel_thread:
                labels = self._kernel_labels(thread_name)
            else:
                labels = self._faults.contain(
                    "labels", process, lambda: self._read_labels(process, cgroup_id, thread_name)
                ) or self._found_labels(NOTHING, thread_name, "")
            self._cache.put(key, labels)
        return labels

    def rotate(self) -> None:
        """Forget processes that were not seen since the last call."""
        self._cache.rotate()
        self._by_cgroup.rotate()
        if time.monotonic() - self._values_since > VALUES_FOR_S:
            self._values_since = time.monotonic()
            self._values.clear()

    def forget_ended(self, ended: Collection[int]) -> None:
        """Forget the processes of these ids."""
        self._cache.forget(lambda key: key[0] in ended)

    @property
    def tgids(self) -> set[int]:
        """Of the processes that are remembered."""
        return {key[0] for key in self._cache.keys()}  # noqa: SIM118 (no dict)

    def __len__(self) -> int:
        return len(self._cache)

    def _kernel_labels(self, thread_name: str) -> dict[str, str]:
        name = self._bounded("executable", kernel_thread_name(thread_name))
        return {**self._extra, "service": KERNEL, "executable": name}

    def _read_labels(self, process: ProcessId, cgroup_id: int, thread_name: str) -> dict[str, str]:
        tgid, start_ns, _ = process
        try:
            text = read_process_file(tgid, "cgroup").decode("utf-8", "replace")
            executable = _read_executable(tgid)
            check_start(tgid, start_ns)  # or it was another process's
            if self.is_excluded(tgid):
                raise ProcessGoneError(f"process {tgid} has become one that is excluded")
        except (OSError, ProcessGoneError):
            # It has ended: another process of the same cgroup may have told us before.
            names, executable, build_id = self._by_cgroup.get(cgroup_id) or NOTHING, "", ""
        else:
            names = parse_cgroup(text)
            # The kernel program knows the v2 cgroup only: where v1 tells the unit, many share it.
            if names == parse_v2(text):
                self._by_cgroup.put(cgroup_id, names)
            build_id = self._main_build_id(process) if self._main_build_id is not None else ""
        return self._found_labels(names, executable or thread_name, build_id)

    def _found_labels(self, names: CgroupNames, executable: str, build_id: str) -> dict[str, str]:
        executable = executable or "[unknown]"
        found = {
            "service": names.unit or names.container or executable,
            "executable": executable,
            "container": names.container,
            "runtime": names.runtime,
            "build_id": build_id,
        }
        labels = {key: self._bounded(key, value) for key, value in found.items() if value}
        return {**self._extra, **labels}

    def _bounded(self, label: str, value: str) -> str:
        value = fit_text(value, MAX_LABEL_BYTES)
        values = self._values.setdefault(label, set())
        if value not in values:
            if len(values) >= MAX_VALUES:
                self.folded += 1
                return OTHER
            values.add(value)
        return value


def _read_executable(tgid: int) -> str:
    try:
        target = os.readlink(f"/proc/{tgid}/exe")  # noqa: PTH115 (a link, never followed)
    except OSError:
        return ""
    name = target.removesuffix(" (deleted)").rsplit("/", 1)[-1]
    # A program run from memory is called as its maker liked, often by a random number.
    return "memfd" if name.startswith("memfd:") else name
