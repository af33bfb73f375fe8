"""The profilers that are compared, each started on the whole machine and stopped again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

PRESETS = {19: "production", 49: "staging", 99: "development", 199: "debug"}
BCC_PROFILE = "profile-bpfcc"
FIRST_SAMPLE_S = 30.0  # waited for
END_S = 10.0  # after the order to end: bcc and bpftrace look for names then, of dead processes too
_LOOK_EVERY_S = 0.01


@dataclass
class Run:
    """A running profiler. `first_sample_s` is from its start to the first time that a program of
    its own ran on a sample; `user_ns`, known when it has ended, is all that it used, children
    included; `system_ns` likewise."""

    pids: list[int]
    first_sample_s: float | None = None
    user_ns: int = 0
    system_ns: int = 0
    was_killed: bool = False  # it did not end in time
    received: Callable[[], dict[str, Any]] = field(default=dict)  # see benchmarks.centre
    status: Callable[[], dict[str, Any]] = field(default=dict)  # of the sampler


class Profiler(NamedTuple):
    """How to run one, and the program that has to be installed for it."""

    name: str
    start: Callable[[int, Path], AbstractContextManager[Run]]
    needs: str | None = None

    @property
    def is_here(self) -> bool:
        """Whether it is installed."""
        return self.needs is None or shutil.which(self.needs) is not None


@contextmanager
def flamefleet(rate_hz: int, folder: Path) -> Iterator[Run]:
    """Sampler and shipper with the preset of the rate, delivering to benchmarks.centre. What is
    kept in `folder` (unwind rows) is found again by the next run there."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith("FLAMEFLEET_")}
    agent = [sys.executable, "-m", "node_agent"]
    spool = ["--spool-dir", str(folder / "spool")]
    token = folder / "token"
    token.write_text("bench\n")
    processes: list[subprocess.Popen[Any]] = []
    centre = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.centre"], stdout=subprocess.PIPE, text=True
    )
    processes.append(centre)
    try:
        assert centre.stdout is not None
        url = f"http://127.0.0.1:{int(centre.stdout.readline())}"
        with (folder / f"agent-{rate_hz}.log").open("wb") as log:
            began_s = time.monotonic()
            run = [*agent, "run", "--preset", PRESETS[rate_hz], "--name", "bench", *spool]
            processes.append(subprocess.Popen(run, stderr=log, env=clean))
            ship = [*agent, "ship", "--url", url, "--token-file", str(token), *spool]
            processes.append(subprocess.Popen(ship, stderr=log, env=clean))
        yield Run(
            [process.pid for process in processes[1:]],
            _first_sample_s(processes[1].pid, began_s),
            received=lambda: json.loads(_get(f"{url}/received")),
            status=lambda: json.loads((folder / "spool/status/sampler.json").read_text()),
        )
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait(60)


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return bytes(answer.read())


@contextmanager
def perf_record(rate_hz: int, folder: Path) -> Iterator[Run]:
    """perf record of the whole machine with frame pointers."""
    with _running(_perf(rate_hz, folder, "fp")) as run:
        yield run


@contextmanager
def perf_record_dwarf(rate_hz: int, folder: Path) -> Iterator[Run]:
    """perf record with 8 KB of every stack, to be unwound by the one who reads it."""
    with _running(_perf(rate_hz, folder, "dwarf")) as run:
        yield run


def _perf(rate_hz: int, folder: Path, call_graph: str) -> list[str]:
    command = ["perf", "record", "-q", "-a", "--call-graph", call_graph, "-e", "cpu-clock"]
    return [*command, "-F", str(rate_hz), "-o", str(folder / "perf.data")]


@contextmanager
def bcc_profile(rate_hz: int, folder: Path) -> Iterator[Run]:
    """bcc's profile tool, folded output at its end."""
    command = [BCC_PROFILE, "-F", str(rate_hz), "-f", "100000"]
    with _running(command, kernel_headers(folder)) as run:
        yield run


@contextmanager
def bpftrace(rate_hz: int, folder: Path) -> Iterator[Run]:
    """bpftrace counting kernel and user stacks (frame pointers), printed at its end."""
    program = f"profile:hz:{rate_hz} {{ @[kstack, ustack, comm] = count(); }}"
    with _running(["bpftrace", "-e", program], kernel_headers(folder)) as run:
        yield run


def kernel_headers(folder: Path) -> dict[str, str]:
    """Where bcc and bpftrace find kernel headers: the running kernel's, else Debian's newest,
    joined.

    Debian splits its headers into two trees; bcc wants one. Those of another kernel are good
    enough for a profiler that reads hardly any kernel struct.
    """
    if Path(f"/lib/modules/{os.uname().release}/build").exists():
        return {}
    trees = sorted(Path("/usr/src").glob("linux-headers-*[0-9]-amd64"))
    if not trees:
        return {}
    joined = folder / "headers"
    common = trees[-1].with_name(trees[-1].name.replace("-amd64", "-common"))
    for tree in (common, trees[-1]):
        subprocess.run(["cp", "-asfT", str(tree), str(joined)], check=True)
    return {"BCC_KERNEL_SOURCE": str(joined), "BPFTRACE_KERNEL_SOURCE": str(joined)}


@contextmanager
def _running(command: list[str], environment: dict[str, str] | None = None) -> Iterator[Run]:
    began_s = time.monotonic()
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    )
    try:
        has_programs = command[0] != "perf"
        run = Run([process.pid], _first_sample_s(process.pid, began_s) if has_programs else None)
        yield run
        if process.poll() is not None:
            raise SystemExit(f"{command[0]} ended early with status {process.returncode}")
        process.send_signal(signal.SIGINT)
        killer = threading.Timer(END_S, process.kill)
        killer.start()
        _, status, usage = os.wait4(process.pid, 0)
        killer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        run.was_killed = process.returncode == -signal.SIGKILL
        run.user_ns, run.system_ns = round(usage.ru_utime * 1e9), round(usage.ru_stime * 1e9)
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()


def _first_sample_s(pid: int, began_s: float) -> float | None:
    """Seconds from `began_s` (monotonic) until a BPF program that process `pid` holds has run, as
    the kernel's statistics tell; None when none did in time, or the process ended."""
    folder = Path(f"/proc/{pid}/fdinfo")
    while time.monotonic() - began_s < FIRST_SAMPLE_S:
        try:
            for entry in folder.iterdir():
                text = entry.read_text()
                if "prog_id:" in text and "run_cnt:\t0\n" not in text and "run_cnt:" in text:
                    return time.monotonic() - began_s
        except FileNotFoundError:
            if not folder.exists():
                return None
        except (PermissionError, ProcessLookupError):
            return None
        time.sleep(_LOOK_EVERY_S)
    return None


FLAMEFLEET = Profiler("flamefleet", flamefleet)
RIVALS = (
    Profiler("perf record -g", perf_record, "perf"),
    Profiler("perf record dwarf", perf_record_dwarf, "perf"),
    Profiler("bcc profile", bcc_profile, BCC_PROFILE),
    Profiler("bpftrace", bpftrace, "bpftrace"),
)
