"""How whole and how true the stacks are: `make bench-stacks`.

Each program of tests/data/programs/unwind runs alone, and is sampled at the same time by the agent
(as `record` does it) and by `perf record --call-graph dwarf`; the Python one also by
`py-spy record --native`. Writes build/bench/stacks.json and prints a table with the goals.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.agent_stacks import sample, wait_for_rows
from benchmarks.perf_stacks import DWARF, FRAME_POINTERS, perf_record, read_perf
from benchmarks.programs import PROGRAMS, Program, build, running
from benchmarks.py_spy import PY_SPY, read_py_spy, start_py_spy
from benchmarks.row_building import large_binary
from benchmarks.shares import Difference, Stack, compare, expected_points

RATE_HZ = 499
GOAL_COMPLETE_PERCENT = 99.0
GOAL_POINTS = 2.0
GOAL_NATIVE_US = 20.0
GOAL_PYTHON_US = 30.0
GOAL_ROWS_S = 5.0
GOAL_ROWS_MB = 150.0
# On a busy machine it loses inner Python frames of some samples with --native.
PY_SPY_OPTIONS: tuple[list[str], ...] = (["--native"], [])
_EVALUATOR = re.compile(r"_?PyEval_|_PyFunction_Vectorcall$|method_vectorcall$")
_SHOWN = 5  # differences of each comparison
# What is known of a difference; the figures stay as they were measured.
NOTES = {
    "routines": "its threads sleep for microseconds (runtime.usleep, runtime.futex); tasks are"
    " switched with interrupts off, of which a timer per CPU (ours, perf record -a) sees less than"
    " perf's timer per task, and both see too little (docs/overhead.md)",
}


@dataclass
class Row:
    """One program. Shares in percent, differences in points of percent."""

    program: str
    words: str
    samples: int
    ready_s: float | None  # until its stacks were whole, from the first sample on
    complete_percent: float
    ends: dict[str, int]
    lost: dict[str, int]
    kernel_us_per_sample: float
    rival: str
    rival_samples: int
    rival_complete_percent: float
    points: float
    chance_points: float  # standard deviation of that difference by chance alone
    differences: list[Difference]
    python: list["PythonFunctions"] = field(default_factory=list)


@dataclass
class PythonFunctions:
    """Python's functions alone, beside py-spy in a run of its own."""

    rival: str
    samples: int
    rival_samples: int
    points: float
    differences: list[Difference]


def measure(program: Program, seconds: float, folder: Path) -> Row:
    """Run `program` and compare what the samplers saw of the same seconds."""
    command = build(program, folder)
    call_graph = FRAME_POINTERS if program.needs == "go" else DWARF
    data = folder / f"{program.name}.data"
    with running(command) as pid:
        ready_s = wait_for_rows(pid, RATE_HZ)
        with perf_record(pid, RATE_HZ, data, call_graph):
            ours = sample(pid, seconds, RATE_HZ)
    theirs = read_perf(data, ours, call_graph)
    data.unlink()
    replaced = _evaluators(theirs.stacks) if program.is_python else frozenset()
    differences = [d for d in compare(ours.stacks, theirs.stacks) if d.function not in replaced]
    first = differences[0]
    row = Row(
        program.name,
        program.words,
        ours.stacks.total(),
        ready_s,
        ours.complete_percent,
        ours.ends,
        ours.lost,
        ours.kernel_us_per_sample,
        f"perf --call-graph {call_graph.partition(',')[0]}",
        theirs.stacks.total(),
        theirs.complete_percent,
        first.points,
        expected_points(first.ours, ours.stacks.total(), theirs.stacks.total()),
        differences[:_SHOWN],
    )
    if program.is_python and PY_SPY.exists():
        for options in PY_SPY_OPTIONS:
            found = _compare_python(command, seconds, folder, options)
            row.python += [found] if found is not None else []
    elif program.is_python:
        print("py-spy is not installed: Python functions are not compared", file=sys.stderr)
    return row


def _evaluators(stacks: Counter[Stack]) -> frozenset[str]:
    """CPython's own functions that evaluate, whose place Python's frames take in our stacks."""
    functions = {function for stack in stacks for function in stack}
    return frozenset(name for name in functions if _EVALUATOR.match(name))


def _compare_python(
    command: list[str], seconds: float, folder: Path, options: list[str]
) -> PythonFunctions | None:
    """A run of its own, because py-spy stops the process for every sample; None when it fails."""
    output = folder / "py-spy.txt"
    with running(command) as pid:
        process = start_py_spy(pid, seconds + 2, output, options)
        ours = sample(pid, seconds, RATE_HZ)
        if process.wait(seconds + 60) != 0:
            print(f"py-spy {' '.join(options)} failed: not compared", file=sys.stderr)
            return None
    theirs = read_py_spy(output)
    differences = compare(ours.python, theirs)
    return PythonFunctions(
        " ".join(["py-spy", *options]),
        ours.python.total(),
        theirs.total(),
        differences[0].points,
        differences[:_SHOWN],
    )


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


def goals(rows: list[Row], built: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Every goal with what was measured, and whether that reaches it."""
    found: list[tuple[str, float, str, float]] = []
    for row in rows:
        name = row.program
        found.append(
            (f"{name}: complete stacks, %", row.complete_percent, ">=", GOAL_COMPLETE_PERCENT)
        )
        found.append((f"{name}: largest difference to perf, points", row.points, "<=", GOAL_POINTS))
        for python in row.python:
            words = f"{name}: largest difference to {python.rival}, points"
            found.append((words, python.points, "<=", GOAL_POINTS))
        limit = GOAL_PYTHON_US if row.program == "python" else GOAL_NATIVE_US
        words = f"{name}: BPF, µs a sample"
        found.append((words, row.kernel_us_per_sample, "<=", limit))
    if built is not None:
        words = f"rows of {built['file']} ({built['file_mb']:.0f} MB)"
        found.append((f"{words}: rows made", built["rows"], ">=", 1))
        found.append((f"{words}: CPU, s", built["cpu_s"], "<=", GOAL_ROWS_S))
        found.append((f"{words}: child's peak, MB", built["peak_rss_mb"], "<=", GOAL_ROWS_MB))
    return [
        {
            "goal": words,
            "measured": round(value, 2),
            "limit": f"{sign} {limit:g}",
            "reached": value >= limit if sign == ">=" else value <= limit,
        }
        for words, value, sign, limit in found
    ]


def report(rows: list[Row], built: dict[str, Any] | None) -> str:
    """The table, the largest differences, and each goal in words."""
    head = ("program", "samples", "complete", "µs/sample", "perf's", "complete", "points", "chance")
    lines = ["{:<11}{:>8}{:>10}{:>11}{:>8}{:>10}{:>8}{:>8}".format(*head)]
    lines += [
        f"{r.program:<11}{r.samples:>8}{r.complete_percent:>9.2f}%{r.kernel_us_per_sample:>11.1f}"
        f"{r.rival_samples:>8}{r.rival_complete_percent:>9.2f}%{r.points:>8.2f}"
        f"{r.chance_points:>8.2f}"
        for r in rows
    ]
    lines.append("(µs/sample: BPF alone; points: largest difference of a function's share to perf;")
    lines.append(" chance: its standard deviation between two samplings of the same program)")
    for row in rows:
        compared = [(row.rival, row.differences)]
        compared += [(python.rival, python.differences) for python in row.python]
        for rival, differences in compared:
            lines += [
                f"{row.program}: {d.kind} of {d.function[:60]}: {d.ours:.2f} %,"
                f" {rival} {d.theirs:.2f} %"
                for d in differences[:2]
            ]
        if row.program in NOTES:
            lines.append(f"{row.program}: {NOTES[row.program]}")
    if built is not None:
        lines.append(
            f"rows of {built['file']}: {built['file_mb']:.0f} MB, {built['rows']} rows,"
            f" {built['cpu_s']:.1f} s of CPU, {built['wall_s']:.1f} s,"
            f" {built['peak_rss_mb']:.0f} MB in the child {built['refused']}"
        )
    for goal in goals(rows, built):
        word = "reached" if goal["reached"] else "MISSED"
        lines.append(f"{word:<8}{goal['goal']}: {goal['measured']} (goal {goal['limit']})")
    return "\n".join(lines)


def main() -> None:
    """Measure every program, write JSON, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=40.0, help="of each program")
    parser.add_argument("--only", nargs="*", default=[], help="names of programs")
    parser.add_argument("--output", type=Path, default=Path("build/bench/stacks.json"))
    options = parser.parse_args()
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
