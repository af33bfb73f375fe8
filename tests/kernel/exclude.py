"""Excludes one load of each kind beside one that is not; what was seen is one line of JSON.

usage: exclude.py BUSY SAMPLES
The loads are copies of BUSY, started after the collector, each named by what excludes it. Goes on
until the load `free` has so many samples and every other one has used CPU time, for ten minutes
at most.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from node_agent.collectors.cpu import CpuCollector
from node_agent.exclusions import ExcludeConfig
from node_agent.kernel.mounts import read_mounts

USER = 61234
CPU_S = 0.3
LIMIT_S = 600.0


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def hierarchies() -> dict[str, Path]:
    """Mount points of the two hierarchies that may hold systemd's units."""
    found = {}
    for mount in read_mounts():
        if mount.kind == "cgroup2":
            found["v2"] = Path(mount.point)
        elif mount.kind == "cgroup" and "name=systemd" in mount.options:
            found["v1"] = Path(mount.point)
    return found


class Loads:
    """Running copies of one program, and the cgroups made for them."""

    def __init__(self, busy: Path, folder: Path) -> None:
        self._busy = busy
        self._folder = folder
        self._cgroups: list[Path] = []
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, prepare: Callable[[], None] | None = None) -> None:
        path = Path(shutil.copy(self._busy, self._folder / name))
        self.processes[name] = subprocess.Popen(
            [path],
            stdout=subprocess.DEVNULL,
            preexec_fn=prepare,  # noqa: PLW1509 - one thread
        )

    def start_in(self, name: str, top: Path, below: str) -> None:
        """In a cgroup made for it, several levels deep."""
        cgroup = top
        for part in below.split("/"):
            cgroup = cgroup / part
            cgroup.mkdir(exist_ok=True)
            self._cgroups.append(cgroup)
        self.start(name, lambda: enter(cgroup))

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        for cgroup in reversed(self._cgroups):
            with suppress(OSError):
                cgroup.rmdir()


def enter(cgroup: Path) -> None:
    (cgroup / "cgroup.procs").write_text("0")


def main() -> None:
    busy, wanted = Path(sys.argv[1]), int(sys.argv[2])
    folder = Path(tempfile.mkdtemp(prefix="flamefleet-exclude-"))
    folder.chmod(0o755)
    (folder / "real").mkdir()
    (folder / "link").symlink_to("real")
    group = f"flamefleet-test-{os.getpid()}"
    exclude = ExcludeConfig(
        units=(f"{group}-unit.service",),
        users=(str(USER),),
        executables=("by_file_name", str(folder / "link" / "by_path")),
        cgroups=(f"/{group}/inner",),
    )
    mode = os.environ.get("MODE", "core")
    collector = CpuCollector(199, 100_000, 10, mode=mode, exclude=exclude)
    loads, elsewhere = Loads(busy, folder), Loads(busy, folder / "real")
    counts: Counter[str] = Counter()
    stacks: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    collector.start()
    try:
        loads.start("free")
        loads.start("by_file_name")
        elsewhere.start("by_path")
        loads.start("by_user", lambda: os.setuid(USER))
        for version, top in hierarchies().items():
            loads.start_in(f"by_unit_{version}", top, f"{group}/{group}-unit.service/deep")
            loads.start_in(f"by_cgroup_{version}", top, f"{group}/inner/deep")
            loads.start_in(f"free_{version}", top, f"{group}/other/inner")
        processes = loads.processes | elsewhere.processes
        # Other runs have programs of these names, and before its exec a process is none of them.
        ours = {(process.pid, name) for name, process in processes.items()}
        end = time.monotonic() + LIMIT_S
        cpu_s: dict[str, float] = {}
        while time.monotonic() < end:
            time.sleep(0.5)
            interval = collector.take_interval()
            stacks.update(
                stack.thread_name
                for stack in collector.poll()
                if (stack.process.tgid, stack.thread_name) in ours
            )
            skipped.update(interval.skipped)
            for key, count in interval.counts.items():
                if (key.tgid, key.thread_name) in ours:
                    counts[key.thread_name] += count
            cpu_s = {name: cpu_seconds(process.pid) for name, process in processes.items()}
            if counts["free"] >= wanted and min(cpu_s.values()) >= CPU_S:
                break
    finally:
        collector.stop()
        loads.stop()
        elsewhere.stop()
        shutil.rmtree(folder)
    found = {
        "release": os.uname().release,
        "counts": {name: counts[name] for name in cpu_s},
        "stacks": {name: stacks[name] for name in cpu_s},
        "cpu_s": cpu_s,
        "excluded": skipped["excluded"],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
