"""Cost of running processes, read from /proc: CPU, memory, BPF programs and maps."""

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")
_CLOCK_MONOTONIC_COARSE = 6  # <linux/time.h>: its resolution is the period of timer interrupts
BPF_STATS = Path("/proc/sys/kernel/bpf_stats_enabled")


@dataclass(frozen=True)
class Cost:
    """Counters of a set of processes at one moment. CPU in ns, memory in bytes."""

    user_ns: int
    system_ns: int
    children_ns: int  # user and system, of children that have ended and were waited for
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
        children += (int(fields[13]) + int(fields[14])) * TICK_NS
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


@dataclass
class Row:
    """One profiler at one rate under one load over one window. Percent is of one core.

    `user_error_percent` is the standard error of `user_percent`: see `user_error_ns`.
    `children_percent` is user and system CPU of short-lived children that ended in the window;
    `whole_run_percent` is all user CPU from the profiler's start to its end, children included,
    over the time from its start until it was told to end, where that is known. `from_s`: of the
    agent's windows, when this one began, seconds after the load.
    """

    profiler: str
    load: str
    rate_hz: int
    seconds: float
    forks_a_second: float  # of the whole machine
    first_sample_s: float | None
    user_percent: float
    system_percent: float
    children_percent: float
    bpf_percent: float
    kernel_us_per_sample: float | None
    samples: int | None
    rss_mb: float
    pss_mb: float
    map_mb: float | None
    whole_run_percent: float | None = None
    was_killed: bool = False  # it had not ended END_S after the order, so that is not the whole
    own: "Own | None" = None
    from_s: float | None = None
    user_error_percent: float = 0.0


@dataclass(frozen=True)
class Own:
    """What the agent says of the same window, and what the centre got of it. Percent is of one
    core, children included; bytes are of HTTP, heads included, without TCP's."""

    sampler_percent: float
    shipper_percent: float
    bpf_percent: float
    interrupt_percent: float
    host_percent: float  # all of that, as a share of the host
    memory_mb: float  # by the definition of docs/overhead.md, maps included
    rate_hz: float  # at the end of the window
    steps: list[str]  # of the governor, since the start
    lost: dict[str, int]
    rows_a_batch: float
    batches: int
    bytes_a_minute: float  # batches with their heads
    definition_bytes_a_minute: float  # of stacks that the centre did not know yet
    head_bytes_a_minute: float  # of both


def row(
    profiler: str,
    load: str,
    rate_hz: int,
    seconds: float,
    before: Cost,
    after: Cost,
    first_sample_s: float | None,
    forks: int,
) -> Row:
    """Difference of two readings as a row; memory is that of the second reading."""
    runs = after.program_runs - before.program_runs
    program_ns = after.program_ns - before.program_ns
    return Row(
        profiler,
        load,
        rate_hz,
        seconds,
        forks / seconds,
        first_sample_s,
        (after.user_ns - before.user_ns) / seconds / 1e7,
        (after.system_ns - before.system_ns) / seconds / 1e7,
        (after.children_ns - before.children_ns) / seconds / 1e7,
        program_ns / seconds / 1e7,
        program_ns / runs / 1000 if runs else None,
        runs or None,
        after.rss_bytes / 1e6,
        after.pss_bytes / 1e6,
        after.map_bytes / 1e6 if after.map_bytes else None,
        user_error_percent=user_error_ns(before, after) / seconds / 1e7,
    )


def user_error_ns(before: Cost, after: Cost) -> float:
    """Standard error of the user CPU between two readings.

    The kernel knows the sum of user and system time exactly, and divides it by what its timer
    interrupted (`cputime_adjust` in kernel/sched/cputime.c): n interrupts, of which a share p found
    user space, tell p up to sqrt(p (1 - p) / n). Kernels that account at each entry know better.
    """
    total = after.user_ns + after.system_ns - before.user_ns - before.system_ns
    if total <= 0:
        return 0.0
    interrupts = max(1.0, total / (1e9 * time.clock_getres(_CLOCK_MONOTONIC_COARSE)))
    share = (after.user_ns - before.user_ns) / total
    return total * math.sqrt(share * (1 - share) / interrupts)


def own(before: dict[str, Any], after: dict[str, Any], status: dict[str, Any], cpus: int) -> Own:
    """Difference of two readings of benchmarks.centre, and the sampler's status at the end."""
    grown = {
        name: after[name] - before[name]
        for name in after
        if name not in ("lost", "rate_hz", "memory_bytes", "map_bytes")
    }
    seconds = max(grown["duration_ns"], 1) / 1e9
    names = ("sampler", "shipper", "kernel", "interrupt")
    sampler, shipper, bpf, interrupt = (grown[f"{name}_cpu_ns"] / seconds / 1e7 for name in names)
    lost = {
        reason: count - before["lost"].get(reason, 0) for reason, count in after["lost"].items()
    }
    definitions = grown["definition_bytes"] + grown["definition_head_bytes"]
    heads = grown["batch_head_bytes"] + grown["definition_head_bytes"]
    return Own(
        sampler,
        shipper,
        bpf,
        interrupt,
        (sampler + shipper + bpf + interrupt) / cpus,
        after["memory_bytes"] / 1e6,
        after["rate_hz"],
        [step["words"] for step in status.get("governor", [])],
        {reason: count for reason, count in lost.items() if count},
        grown["rows"] / max(grown["batches"], 1),
        grown["batches"],
        (grown["batch_bytes"] + grown["batch_head_bytes"]) * 60 / seconds,
        definitions * 60 / seconds,
        heads * 60 / seconds,
    )
