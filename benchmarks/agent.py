"""What the agent costs, beside perf, bcc's `profile` and `bpftrace` on the same loads.

Writes build/bench/agent.json and prints a table with the goals. The agent (sampler and shipper,
with unwinding and Python frames, and the preset of its rate) runs once at each rate, under one load
after the other; its rivals each run alone under one load. At last a fixed amount of work is timed
in turns with and without a profiler. The centre is a stand-in: see benchmarks.centre.

User CPU is percent of one core over the window after a warm-up, without the children that the agent
starts now and then. The busy load has a second window, minutes later, when the agent has learned
its programs: what it costs while it learns, and what it costs from then on. perf, bcc and bpftrace
do their work when they end: `whole run` has that.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from benchmarks.load import LOADS, forks
from benchmarks.measure import BPF_STATS, Row, cost, own, row
from benchmarks.profilers import FLAMEFLEET, PRESETS, RIVALS, Profiler, Run
from benchmarks.report import report
from benchmarks.slowdown import Slowdown, measure_slowdown

RATES_HZ = (19, 99, 199)
RIVAL_RUNS = ((99, "busy"), (99, "forks"))
SLOWDOWN_RATE_HZ = 99
RIVAL_WARM_UP_S = 3.0
RIVAL_S = 12.0


@contextmanager
def bpf_statistics() -> Iterator[None]:
    """Have the kernel count the time of BPF programs meanwhile (the agent itself never does)."""
    before = BPF_STATS.read_text()
    BPF_STATS.write_text("1")
    try:
        yield
    finally:
        BPF_STATS.write_text(before)


def measure_agent(
    rate_hz: int, loads: list[str], seconds: float, starts_s: list[float], folder: Path
) -> Iterator[Row]:
    """One run of the agent: a window for each load, beginning the first of `starts_s` after it,
    and for the busy one a window at each of them."""
    with FLAMEFLEET.start(rate_hz, folder) as run:
        for load in loads:
            with LOADS[load](folder):
                began_s = time.monotonic()
                for start_s in starts_s if load == "busy" else starts_s[:1]:
                    say(f"{FLAMEFLEET.name} at {rate_hz} Hz, {load}, from {start_s:.0f} s on")
                    time.sleep(max(0.0, began_s + start_s - time.monotonic()))
                    _wait_for_batch(run)
                    before_own = run.received()
                    measured = _window(FLAMEFLEET, load, rate_hz, seconds, run)
                    _wait_for_batch(run)
                    measured.own = own(
                        before_own, run.received(), run.status(), os.cpu_count() or 1
                    )
                    measured.from_s = start_s
                    yield measured


def _wait_for_batch(run: Run) -> None:
    """Until a batch has arrived, so that the agent's own figures begin and end with one."""
    number = run.received()["batches"]
    limit_s = time.monotonic() + 60
    while run.received()["batches"] == number and time.monotonic() < limit_s:
        time.sleep(0.2)


def measure_rival(profiler: Profiler, rate_hz: int, load: str, seconds: float, folder: Path) -> Row:
    """One run of another profiler under one load."""
    say(f"{profiler.name} at {rate_hz} Hz, {load}")
    with LOADS[load](folder):
        began_s = time.monotonic()
        with profiler.start(rate_hz, folder) as run:
            time.sleep(RIVAL_WARM_UP_S)
            measured = _window(profiler, load, rate_hz, seconds, run)
            ran_s = time.monotonic() - began_s
    measured.whole_run_percent = (run.user_ns + run.system_ns) / ran_s / 1e7
    measured.was_killed = run.was_killed
    return measured


def _window(profiler: Profiler, load: str, rate_hz: int, seconds: float, run: Run) -> Row:
    before, forks_before, start_s = cost(run.pids), forks(), time.monotonic()
    time.sleep(seconds)
    after, end_s = cost(run.pids), time.monotonic()
    return row(
        profiler.name,
        load,
        rate_hz,
        end_s - start_s,
        before,
        after,
        run.first_sample_s,
        forks() - forks_before,
    )


def say(words: str) -> None:
    """What is done now, on stderr."""
    print(f"{words}…", file=sys.stderr, flush=True)


def main() -> None:
    """Run what was chosen, write JSON, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=30.0, help="window of each measurement")
    parser.add_argument("--warm-up", type=float, default=10.0, help="seconds before the agent's")
    parser.add_argument(
        "--settled", type=float, default=180.0, help="seconds before its second, when busy; 0: none"
    )
    parser.add_argument("--rates", type=int, nargs="*", default=RATES_HZ, choices=sorted(PRESETS))
    parser.add_argument("--loads", nargs="*", default=list(LOADS), choices=list(LOADS))
    parser.add_argument("--no-rivals", action="store_true", help="the agent alone")
    parser.add_argument("--blocks", type=int, default=6, help="of the slow-down; 0: none")
    parser.add_argument("--output", type=Path, default=Path("build/bench/agent.json"))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what it started ends too
    rivals = [] if options.no_rivals else [rival for rival in RIVALS if rival.is_here]
    missing = [] if options.no_rivals else [rival for rival in RIVALS if not rival.is_here]
    for rival in missing:
        print(f"{rival.name}: {rival.needs} is not installed, left out", file=sys.stderr)
    rows: list[Row] = []
    slowdowns: list[Slowdown] = []
    with bpf_statistics(), tempfile.TemporaryDirectory(prefix="flamefleet-bench-") as work:
        folder = Path(work)
        folder.chmod(0o755)
        starts_s = [options.warm_up, *([options.settled] if options.settled else [])]
        for rate_hz in options.rates:
            rows += measure_agent(rate_hz, options.loads, options.seconds, starts_s, folder)
        for rate_hz, load in RIVAL_RUNS:
            for rival in rivals if rate_hz in options.rates and load in options.loads else []:
                rows.append(
                    measure_rival(rival, rate_hz, load, min(options.seconds, RIVAL_S), folder)
                )
    # Without the statistics, which cost something themselves.
    if options.blocks:
        with tempfile.TemporaryDirectory(prefix="flamefleet-bench-") as work:
            say(f"slow-down at {SLOWDOWN_RATE_HZ} Hz")
            compared = [FLAMEFLEET, *rivals[:1]]
            slowdowns = measure_slowdown(compared, SLOWDOWN_RATE_HZ, options.blocks, Path(work))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    machine = {"cpus": os.cpu_count(), "kernel": os.uname().release, "load": os.getloadavg()}
    document = {
        "machine": machine,
        "rows": [asdict(measured) for measured in rows],
        "slowdown": [asdict(slowdown) for slowdown in slowdowns],
    }
    options.output.write_text(json.dumps(document, indent=2) + "\n")
    table = report(rows, slowdowns)
    options.output.with_suffix(".txt").write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main()
