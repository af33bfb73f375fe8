"""Cost of running processes, read from /proc: CPU, memory, BPF programs and maps."""

import os
from dataclasses import dataclass
from pathlib import Path

TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")
BPF_STATS = Path("/proc/sys/kernel/bpf_stats_enabled")


@dataclass(frozen=True)
class Cost:
    """Counters of a set of processes at one moment. CPU in ns, memory in bytes."""

    user_ns: int
    system_ns: int
    children_user_ns: int  # of children that have ended and were waited for
    rss_bytes: int
    pss_bytes: int
    map_bytes: int
    program_ns: int
    program_runs: int


def cost(pids: list[int]) -> Cost:
    """Sum of the counters of `pids`; maps and programs are counted once by id."""
    user = system = children = rss = pss = 0
    maps: dict[str, int] = {}
    programs: dict[str, tuple[int, int]] = {}
    for pid in pids:
        process = Path("/proc") / str(pid)
        fields = (process / "stat").read_text().rsplit(") ", 1)[1].split()
        user += int(fields[11]) * TICK_NS
        system += int(fields[12]) * TICK_NS
        children += int(fields[13]) * TICK_NS
        rollup = _fields((process / "smaps_rollup").read_text())
        rss += _kib(rollup["Rss"])
        pss += _kib(rollup["Pss"])
        for entry in (process / "fdinfo").iterdir():
            info = _fields(entry.read_text())
            if "map_id" in info:
                maps[info["map_id"]] = int(info["memlock"])
            if "prog_id" in info:
                runs = (int(info.get("run_time_ns", 0)), int(info.get("run_cnt", 0)))
                programs[info["prog_id"]] = runs
    program_ns = sum(ns for ns, _ in programs.values())
    program_runs = sum(runs for _, runs in programs.values())
    return Cost(user, system, children, rss, pss, sum(maps.values()), program_ns, program_runs)


def _fields(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _kib(value: str) -> int:
    return int(value.split()[0]) * 1024


@dataclass(frozen=True)
class Row:
    """One profiler at one rate over one window. Percent is of one core.

    `children_percent` is user CPU of short-lived children that ended in the window;
    `whole_run_percent` is all user CPU from the profiler's start to its end, children included,
    over the time from its start until it was told to end.
    """

    profiler: str
    rate_hz: int
    seconds: float
    user_percent: float
    system_percent: float
    children_percent: float
    whole_run_percent: float
    kernel_us_per_sample: float | None
    samples: int | None
    rss_mb: float
    pss_mb: float
    map_mb: float | None


def row(
    profiler: str,
    rate_hz: int,
    seconds: float,
    before: Cost,
    after: Cost,
    whole_run_percent: float,
) -> Row:
    """Difference of two readings as a row; memory is that of the second reading."""
    runs = after.program_runs - before.program_runs
    in_kernel = (after.program_ns - before.program_ns) / runs / 1000 if runs else None
    return Row(
        profiler,
        rate_hz,
        seconds,
        (after.user_ns - before.user_ns) / seconds / 1e7,
        (after.system_ns - before.system_ns) / seconds / 1e7,
        (after.children_user_ns - before.children_user_ns) / seconds / 1e7,
        whole_run_percent,
        in_kernel,
        runs or None,
        after.rss_bytes / 1e6,
        after.pss_bytes / 1e6,
        after.map_bytes / 1e6 if after.map_bytes else None,
    )
