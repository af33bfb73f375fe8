"""The bench's figures as a table, and beside the goals."""

import os

from benchmarks.measure import Row
from benchmarks.slowdown import Slowdown

GOAL_USER = {19: 0.2, 99: 0.5}  # user CPU of both processes, percent of one core, busy
STORM_FACTOR = 3.0
GOAL_MEMORY_MB = 44.0  # PSS of both processes and the BPF maps
GOAL_FIRST_SAMPLE_S = 1.0
GOAL_BYTES = {19: 15_000, 99: 30_000}  # a minute, busy, once the centre knows the stacks
KEPT_RATE = 0.9  # of the samples that are due
_EXPLAINED = (
    "from: the window began so long after the load; at first the agent still learns its programs",
    "user, sys: percent of one core in the window, of the resident processes; ±: standard error of",
    "    user, as the kernel divides both by what its timer interrupted",
    "children: CPU, percent of one core, of short-lived ones that ended in the window",
    "BPF: of the programs, percent of one core; µs/sample: of it, by the kernel's statistics",
    "whole run: all CPU from start to end, percent of one core over the time until the order to",
    "    end: perf, bcc and bpftrace do their work when they end, perf without its report;",
    "    >: it was killed, not being ready 10 s after that order",
    "first: seconds from the start of the process to the first run of a program of its own",
)


def report(rows: list[Row], slowdowns: list[Slowdown]) -> str:
    """The tables, with goals and ratios in words."""
    heads = [
        "profiler",
        "Hz",
        "load",
        "from s",
        "forks/s",
        "user %",
        "±",
        "sys %",
        "children",
        "BPF %",
    ]
    heads += ["µs/sample", "whole run", "RSS MB", "PSS MB", "maps MB", "first s"]
    widths = [18, 4, 6, 7, 8, 8, 6, 7, 9, 7, 10, 10, 8, 8, 8, 8]
    table = [heads, *(_cells(measured) for measured in rows)]
    lines = [
        "".join(
            f" {cell}".ljust(width) if place in (0, 2) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        for cells in table
    ]
    lines += [*_EXPLAINED, "", *_own_lines(rows), ""]
    lines += [
        f"slow-down by {slow.profiler} at {slow.rate_hz} Hz: {slow.percent:.2f} %"
        f" ({slow.low:.2f} to {slow.high:.2f}, {slow.blocks} blocks)"
        for slow in slowdowns
    ]
    return "\n".join([*lines, *goals(rows)])


def _cells(measured: Row) -> list[str]:
    def show(value: float | None, places: int = 1) -> str:
        return "-" if value is None else f"{value:.{places}f}"

    return [
        measured.profiler,
        str(measured.rate_hz),
        measured.load,
        show(measured.from_s, 0),
        show(measured.forks_a_second, 0),
        show(measured.user_percent, 2),
        show(measured.user_error_percent, 2),
        show(measured.system_percent, 2),
        show(measured.children_percent, 2),
        show(measured.bpf_percent, 2),
        show(measured.kernel_us_per_sample),
        show(measured.whole_run_percent, 2) + (">" if measured.was_killed else ""),
        show(measured.rss_mb),
        show(measured.pss_mb),
        show(measured.map_mb),
        show(measured.first_sample_s, 2),
    ]


def _own_lines(rows: list[Row]) -> list[str]:
    lines = []
    for measured in rows:
        own = measured.own
        if own is None:
            continue
        lines.append(
            f"{_name(measured)}: by its own account sampler"
            f" {own.sampler_percent:.2f}, shipper {own.shipper_percent:.2f}, BPF"
            f" {own.bpf_percent:.2f}, interrupts {own.interrupt_percent:.2f} % of one core,"
            f" children included: {own.host_percent:.2f} % of the host; memory"
            f" {own.memory_mb:.1f} MB; {own.bytes_a_minute / 1e3:.1f} KB a minute in batches of"
            f" {own.rows_a_batch:.0f} rows, {own.definition_bytes_a_minute / 1e3:.1f} KB in"
            f" definitions, of both {own.head_bytes_a_minute / 1e3:.1f} KB heads; lost {own.lost}"
        )
        lines += [f"    governor: {words}" for words in own.steps]
    return lines


def _name(measured: Row) -> str:
    return f"{measured.rate_hz} Hz {measured.load} from {measured.from_s or 0:.0f} s"


def goals(rows: list[Row]) -> list[str]:
    """One line for each goal, with what was measured as a share of it."""
    lines = []
    for measured in rows:
        if measured.own is None:
            continue
        name = _name(measured)
        lines += _rate_lines(measured, name)
        limit = GOAL_USER.get(measured.rate_hz)
        if limit is not None and measured.load == "busy":
            bytes_a_minute = measured.own.bytes_a_minute
            lines += [
                _user_line(name, measured, limit),
                _line(
                    f"{name}: KB a minute", bytes_a_minute / 1e3, GOAL_BYTES[measured.rate_hz] / 1e3
                ),
            ]
        if limit is not None and measured.load == "forks":
            lines.append(_user_line(name, measured, STORM_FACTOR * limit))
        memory_mb = measured.pss_mb + (measured.map_mb or 0)
        lines.append(_line(f"{name}: PSS and maps, MB", memory_mb, GOAL_MEMORY_MB))
    firsts = {measured.rate_hz: measured.first_sample_s for measured in rows if measured.own}
    lines += [
        _line(f"{rate_hz} Hz: first sample, s", first_s, GOAL_FIRST_SAMPLE_S)
        for rate_hz, first_s in firsts.items()
        if first_s is not None
    ]
    return lines


def _user_line(name: str, measured: Row, limit: float) -> str:
    words = f"{name}: user CPU, % of one core, ±{measured.user_error_percent:.2f}"
    return _line(words, measured.user_percent, limit)


def _line(words: str, value: float, goal: float) -> str:
    said = "reached" if value <= goal else "MISSED"
    return f"{said:<8}{words}: {value:.2f}, goal {goal:g}: {value / goal:.2f} of it"


def _rate_lines(measured: Row, name: str) -> list[str]:
    if measured.load == "idle":  # some machines let a CPU sleep through its interrupts
        return []
    # Every CPU has work, so fewer samples mean that the governor went to a lower rate.
    due = measured.rate_hz * (os.cpu_count() or 1) * measured.seconds
    if measured.samples is None or measured.samples >= KEPT_RATE * due:
        return []
    return [
        f"{name}: the rate was NOT KEPT: {measured.samples} samples, {due:.0f} were due;"
        " its figures are of a lower rate"
    ]
