"""How whole and how true the stacks are: `make bench-stacks`.

Each program of tests/data/programs/unwind runs alone, and is sampled at the same time by the agent
(as `record` does it) and by `perf record --call-graph dwarf`; the Python one also by
`py-spy record --native`. Writes build/bench/stacks.json and prints a table with the goals.

perf samples the whole host by a timer of each CPU, as the agent does, and then once more by a timer
of each thread (`-p`), which sees other shares of what sleeps often: see docs/overhead.md. All rates
are coprime, or two timers of one CPU would keep their distance for the whole run.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.agent_stacks import Sampled, sample, wait_for_rows
from benchmarks.perf_stacks import DWARF, FRAME_POINTERS, perf_record, read_perf
from benchmarks.programs import PROGRAMS, Program, build, running
from benchmarks.py_spy import PY_SPY, read_py_spy, start_py_spy
from benchmarks.row_building import large_binary
from benchmarks.shares import Stack, compare, expected_points
from benchmarks.stacks_report import SHOWN, Comparison, Row, goals, report

RATE_HZ = 499
PERF_RATE_HZ = 487
# On a busy machine it loses inner Python frames of some samples with --native.
PY_SPY_OPTIONS: tuple[list[str], ...] = (["--native"], [])
_EVALUATOR = re.compile(r"_?PyEval_|_PyFunction_Vectorcall$|method_vectorcall$")


def measure(program: Program, seconds: float, folder: Path) -> Row:
    """Run `program` and compare what the samplers saw of the same seconds."""
    command = build(program, folder)
    call_graph = FRAME_POINTERS if program.needs == "go" else DWARF
    windows = []
    with running(command) as pid:
        ready_s = wait_for_rows(pid, RATE_HZ)
        for by_thread in (False, True):
            data = folder / f"{program.name}-{by_thread}.data"
            with perf_record(pid, PERF_RATE_HZ, data, call_graph, by_thread):
                windows.append((sample(pid, seconds, RATE_HZ), data, by_thread))
    # Only now: perf takes minutes of CPU to unwind.
    compared = [_compare_perf(program, pid, call_graph, *window) for window in windows]
    ours = windows[0][0]
    row = Row(
        program.name,
        program.words,
        ours.stacks.total(),
        ready_s,
        ours.complete_percent,
        ours.ends,
        ours.lost,
        ours.kernel_us_per_sample,
        program.is_python,
        compared,
    )
    if program.is_python and PY_SPY.exists():
        for options in PY_SPY_OPTIONS:
            found = _compare_python(command, seconds, folder, options)
            row.comparisons += [found] if found is not None else []
    elif program.is_python:
        print("py-spy is not installed: Python functions are not compared", file=sys.stderr)
    return row


def _compare_perf(
    program: Program, pid: int, call_graph: str, ours: Sampled, data: Path, by_thread: bool
) -> Comparison:
    theirs = read_perf(pid, data, ours, call_graph)
    data.unlink()
    replaced = _evaluators(theirs.stacks) if program.is_python else frozenset()
    target = "-p" if by_thread else "-a"
    rival = f"perf record {target} --call-graph {call_graph.partition(',')[0]}"
    compared = _comparison(rival, ours.stacks, theirs.stacks, replaced)
    compared.rival_complete_percent = theirs.complete_percent
    compared.has_goal = not by_thread
    return compared


def _comparison(
    rival: str,
    ours: Counter[Stack],
    theirs: Counter[Stack],
    replaced: frozenset[str] = frozenset(),
) -> Comparison:
    found = [d for d in compare(ours, theirs) if d.function not in replaced]
    chance = expected_points(found[0].ours, ours.total(), theirs.total())
    points = found[0].points
    return Comparison(rival, ours.total(), theirs.total(), None, points, chance, found[:SHOWN])


def _evaluators(stacks: Counter[Stack]) -> frozenset[str]:
    """CPython's own functions that evaluate, whose place Python's frames take in our stacks."""
    functions = {function for stack in stacks for function in stack}
    return frozenset(name for name in functions if _EVALUATOR.match(name))


def _compare_python(
    command: list[str], seconds: float, folder: Path, options: list[str]
) -> Comparison | None:
    """Python's functions alone, in a run of its own, because py-spy stops the process for every
    sample; None when it fails."""
    output = folder / "py-spy.txt"
    with running(command) as pid:
        process = start_py_spy(pid, seconds + 2, output, options)
        ours = sample(pid, seconds, RATE_HZ)
        if process.wait(seconds + 60) != 0:
            print(f"py-spy {' '.join(options)} failed: not compared", file=sys.stderr)
            return None
    return _comparison(" ".join(["py-spy record", *options]), ours.python, read_py_spy(output))


def measure_rows() -> dict[str, Any] | None:
    """Unwind rows of a binary of about 100 MB; None where there is none."""
    path = large_binary()
    if path is None:
        print("no binary of about 100 MB on this machine", file=sys.stderr)
        return None
    command = [sys.executable, "-m", "benchmarks.row_building", str(path)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def main() -> None:
    """Measure every program, write JSON, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each comparison")
    parser.add_argument("--only", nargs="*", default=[], help="names of programs")
    parser.add_argument("--output", type=Path, default=Path("build/bench/stacks.json"))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what it started ends too
    if not shutil.which("perf"):
        raise SystemExit("perf is missing: install linux-perf")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="flamefleet-stacks-") as work:
        for program in PROGRAMS:
            if options.only and program.name not in options.only:
                continue
            if not shutil.which(program.needs):
                print(f"{program.name}: {program.needs} is missing, left out", file=sys.stderr)
                continue
            print(f"{program.name} for {options.seconds:.0f} s…", file=sys.stderr)
            rows.append(measure(program, options.seconds, Path(work)))
    built = measure_rows() if not options.only else None
    options.output.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": {"cpus": os.cpu_count(), "kernel": os.uname().release},
        "rate_hz": RATE_HZ,
        "perf_rate_hz": PERF_RATE_HZ,
        "programs": [asdict(row) for row in rows],
        "rows": built,
        "goals": goals(rows, built),
    }
    options.output.write_text(json.dumps(document, indent=2) + "\n")
    table = report(rows, built)
    options.output.with_suffix(".txt").write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main()
