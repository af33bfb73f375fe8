"""The agent beside `perf record -a -g` and bcc's `profile` on the same load, in one run.

Writes build/bench/agent.json and prints a table with the goals. Each profiler runs alone over the
same four busy processes. User CPU is percent of one core: over the window after a warm-up, without
and with the children that the agent starts now and then; and over the whole run, from the start to
the end. That last is the fair comparison: perf and bcc do their work when they end.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.load import busy
from benchmarks.measure import BPF_STATS, Row, cost, row

GOALS = {19: 0.2, 99: 0.5}  # user CPU of both processes, percent of one core
KEPT_RATE = 0.9  # of the samples that are due
GOAL_MEMORY_MB = 44.0  # PSS of both processes and the BPF maps
BCC_PROFILE = "profile-bpfcc"


@dataclass
class Run:
    """A running profiler; `user_ns`, known when it has ended, is all that it used, children
    included."""

    pids: list[int]
    user_ns: int = 0


@contextmanager
def bpf_statistics() -> Iterator[None]:
    """Have the kernel count the time of BPF programs meanwhile (the agent itself never does)."""
    before = BPF_STATS.read_text()
    BPF_STATS.write_text("1")
    try:
        yield
    finally:
        BPF_STATS.write_text(before)


@contextmanager
def flamefleet(rate_hz: int, folder: Path) -> Iterator[Run]:
    """The whole local fleet; yields sampler and shipper."""
    command = [str(Path(sys.executable).parent / "flamefleet"), "up", "--json"]
    command += ["--port", str(free_port())]
    preset = {19: "production", 99: "development"}[rate_hz]
    command += ["--data-dir", str(folder / f"data-{rate_hz}"), "--preset", preset]
    with (folder / f"up-{rate_hz}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline() or "null")
            if ready is None:
                raise SystemExit(f"flamefleet up did not start: see {log.name}")
            run = Run([ready["pids"]["sampler"], ready["pids"]["shipper"]])
            yield run
            # Not their last batch: somebody else waits for them.
            used = cost(run.pids)
            run.user_ns = used.user_ns + used.children_user_ns
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def free_port() -> int:
    """A TCP port of the loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def perf_record(rate_hz: int, folder: Path) -> Iterator[Run]:
    """perf record of the whole machine with frame pointers."""
    command = ["perf", "record", "-q", "-a", "-g", "-e", "cpu-clock", "-F", str(rate_hz)]
    with _running([*command, "-o", str(folder / "perf.data")]) as run:
        yield run


@contextmanager
def bcc_profile(rate_hz: int, folder: Path) -> Iterator[Run]:
    """bcc's profile tool, folded output at its end."""
    with _running([BCC_PROFILE, "-F", str(rate_hz), "-f", "100000"], kernel_headers(folder)) as run:
        yield run


def kernel_headers(folder: Path) -> dict[str, str]:
    """Where bcc finds kernel headers: the running kernel's, else Debian's newest, joined.

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
    return {"BCC_KERNEL_SOURCE": str(joined)}


@contextmanager
def _running(command: list[str], environment: dict[str, str] | None = None) -> Iterator[Run]:
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    )
    try:
        run = Run([process.pid])
        yield run
        if process.poll() is not None:
            raise SystemExit(f"{command[0]} ended early with status {process.returncode}")
        process.send_signal(signal.SIGINT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        run.user_ns = round(usage.ru_utime * 1e9)
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()


PROFILERS = {
    "flamefleet": flamefleet,
    "perf record -g": perf_record,
    "bcc profile": bcc_profile,
}
NEEDS = {"perf record -g": "perf", "bcc profile": BCC_PROFILE}


def measure(name: str, rate_hz: int, seconds: float, warm_up_s: float) -> Row | None:
    """Run one profiler over the load for `seconds` after `warm_up_s`; None when not installed."""
    if name in NEEDS and not shutil.which(NEEDS[name]):
        print(f"{name}: {NEEDS[name]} is not installed, left out", file=sys.stderr)
        return None
    with tempfile.TemporaryDirectory(prefix="flamefleet-bench-") as work:
        folder = Path(work)
        folder.chmod(0o755)
        with busy(folder):
            began = time.monotonic()
            with PROFILERS[name](rate_hz, folder) as run:
                time.sleep(warm_up_s)
                before, start = cost(run.pids), time.monotonic()
                time.sleep(seconds)
                after, end = cost(run.pids), time.monotonic()
    whole_run_percent = run.user_ns / (end - began) / 1e7
    return row(name, rate_hz, end - start, before, after, whole_run_percent)


def report(rows: list[Row]) -> str:
    """The table, with goals and ratios in words."""
    head = ["profiler", "Hz", "user %", "children", "whole run", "sys %", "µs/sample"]
    head += ["RSS MB", "PSS MB", "maps MB"]
    lines = ["{:<16}{:>4}{:>8}{:>10}{:>11}{:>8}{:>11}{:>9}{:>9}{:>9}".format(*head)]
    for r in rows:
        kernel = f"{r.kernel_us_per_sample:.1f}" if r.kernel_us_per_sample else "-"
        maps = f"{r.map_mb:.1f}" if r.map_mb else "-"
        lines.append(
            f"{r.profiler:<16}{r.rate_hz:>4}{r.user_percent:>8.2f}{r.children_percent:>10.2f}"
            f"{r.whole_run_percent:>11.2f}{r.system_percent:>8.2f}"
            f"{kernel:>11}{r.rss_mb:>9.1f}{r.pss_mb:>9.1f}{maps:>9}"
        )
    lines += [
        "user, sys: percent of one core in the window, of the resident processes",
        "children: user CPU, percent of one core, of short-lived ones that ended in the window",
        "whole run: all user CPU from start to end, children and what is done at the end included,",
        "    percent of one core over the time from the start to the order to end; of the agent",
        "    it holds the load of the programs and the first symbols, of perf no report",
        "µs/sample: the BPF program alone",
    ]
    for r in rows:
        if r.profiler == "flamefleet":
            memory = r.pss_mb + (r.map_mb or 0)
            lines.append(
                f"{r.rate_hz} Hz: user {r.user_percent:.2f} % of one core, goal"
                f" {GOALS[r.rate_hz]} %: {r.user_percent / GOALS[r.rate_hz]:.2f} of it;"
                f" PSS and maps {memory:.1f} MB, goal {GOAL_MEMORY_MB:.0f}:"
                f" {memory / GOAL_MEMORY_MB:.2f} of it"
            )
            # Every CPU is busy, so fewer samples mean that the governor went to a lower rate.
            due = r.rate_hz * (os.cpu_count() or 1) * r.seconds
            if r.samples is not None and r.samples < KEPT_RATE * due:
                lines.append(
                    f"{r.rate_hz} Hz was NOT KEPT: {r.samples} samples, {due:.0f} were due;"
                    " the figures above are of a lower rate"
                )
    return "\n".join(lines)


def main() -> None:
    """Run every profiler at every rate, write JSON, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60.0, help="window of each measurement")
    parser.add_argument("--warm-up", type=float, default=20.0, help="seconds before the window")
    parser.add_argument("--output", type=Path, default=Path("build/bench/agent.json"))
    options = parser.parse_args()
    rows: list[Row] = []
    with bpf_statistics():
        for rate_hz in GOALS:
            for name in PROFILERS:
                print(f"{name} at {rate_hz} Hz for {options.seconds:.0f} s…", file=sys.stderr)
                measured = measure(name, rate_hz, options.seconds, options.warm_up)
                if measured:
                    rows.append(measured)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    machine = {"cpus": os.cpu_count(), "kernel": os.uname().release}
    document = {"machine": machine, "rows": [asdict(r) for r in rows]}
    options.output.write_text(json.dumps(document, indent=2) + "\n")
    table = report(rows)
    options.output.with_suffix(".txt").write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main()
