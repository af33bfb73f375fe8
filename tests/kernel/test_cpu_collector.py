"""The CPU collector on this machine's kernel."""

import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from node_agent.collectors.cpu import CpuCollector, Interval, RawStack
from node_agent.kernel.libbpf import library

Busy = tuple[subprocess.Popen[str], list[int]]


class Profile(NamedTuple):
    interval: Interval
    sent: list[RawStack]
    stacks: dict[int, RawStack]

    def of(self, tgid: int) -> list[tuple[RawStack, int]]:
        return [
            (self.stacks[key.stack_key], count)
            for key, count in self.interval.counts.items()
            if key.tgid == tgid
        ]

    def samples_of(self, tgid: int) -> int:
        return sum(count for key, count in self.interval.counts.items() if key.tgid == tgid)


def take(collector: CpuCollector, until: Callable[[], bool] | None = None) -> Profile:
    """Poll for a second (or until the condition holds, ten minutes at most), then take."""
    sent: list[RawStack] = []
    end = time.monotonic() + (1.0 if until is None else 600.0)
    while time.monotonic() < end and not (until is not None and until()):
        time.sleep(0.2)
        sent += collector.poll()
    interval = collector.take_interval()
    sent += collector.poll()
    return Profile(interval, sent, {stack.stack_key: stack for stack in sent})


def cpu_seconds_later(process: subprocess.Popen[str], seconds: float) -> Callable[[], bool]:
    """Holds once the process has used so much more CPU: how busy the machine is doesn't matter."""
    started = cpu_seconds(process.pid)
    return lambda: cpu_seconds(process.pid) - started >= seconds


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@pytest.fixture
def collector() -> Iterator[CpuCollector]:
    collector = CpuCollector(rate_hz=199, max_samples=100_000, interval_s=10)
    collector.start()
    yield collector
    collector.stop()


def test_a_busy_program_is_seen_by_function_in_its_own_shares(
    collector: CpuCollector, busy: Busy
) -> None:
    process, (half, three_tenths, a_fifth, end) = busy
    assert half < three_tenths < a_fifth < end

    profile = take(collector, cpu_seconds_later(process, 4.0))

    seen: Counter[int] = Counter()
    for stack, count in profile.of(process.pid):
        below = [start for start in busy[1] if start <= stack.user_ips[0]]
        seen[max(below, default=0)] += count
    total = profile.samples_of(process.pid)
    assert total > 400  # of so few, 10 points are four standard errors
    assert seen[half] / total == pytest.approx(0.5, abs=0.1)
    assert seen[three_tenths] / total == pytest.approx(0.3, abs=0.1)
    assert seen[a_fifth] / total == pytest.approx(0.2, abs=0.1)


def test_user_stacks_reach_down_the_chain_of_frames(collector: CpuCollector, busy: Busy) -> None:
    process, functions = busy

    profile = take(collector, cpu_seconds_later(process, 2.0))

    # The function, 21 times descend, main, and what starts main. Only samples within one of the
    # three functions: on its way down and up again descend itself has fewer frames.
    depths = Counter[int]()
    for stack, count in profile.of(process.pid):
        leaf = stack.user_ips[0]
        if not stack.kernel_ips and functions[0] <= leaf < functions[-1]:
            depths[len(stack.user_ips)] += count
    assert depths
    assert all(24 <= depth <= 27 for depth in depths), depths


def test_the_process_is_named_by_id_start_and_exec(collector: CpuCollector, busy: Busy) -> None:
    process, _ = busy

    stack, _ = take(collector, cpu_seconds_later(process, 0.5)).of(process.pid)[0]

    stat = Path(f"/proc/{process.pid}/stat").read_text()
    start_ticks = int(stat.rpartition(")")[2].split()[19])
    assert stack.process.tgid == process.pid
    assert stack.process.start_ns // 10_000_000 == start_ticks
    assert stack.process.exec_id > 0
    assert stack.thread_name == "busy"
    assert stack.cgroup_id > 0
    assert not stack.is_kernel_thread


def test_kernel_stacks_are_seen(collector: CpuCollector, dd: subprocess.Popen[str]) -> None:
    profile = take(collector, cpu_seconds_later(dd, 1.0))

    rows = profile.of(dd.pid)
    in_kernel = sum(count for stack, count in rows if stack.kernel_ips)
    assert in_kernel > 0.5 * profile.samples_of(dd.pid)
    assert max(len(stack.kernel_ips) for stack, _ in rows) >= 4  # read, vfs_read, read_zero, ...
    assert all(address >> 63 for stack, _ in rows for address in stack.kernel_ips)
    assert all(stack.user_ips for stack, _ in rows)


def test_every_interrupt_is_accounted_for(collector: CpuCollector, busy: Busy) -> None:
    process, _ = busy
    differences = []
    while not differences or differences[-1] > 20:
        before = collector.totals()
        interval = take(collector, cpu_seconds_later(process, 1.0)).interval
        interrupts = collector.totals().interrupts - before.interrupts
        assert interval.samples == sum(interval.counts.values())
        assert interval.lost == {}
        # a sample between switching the maps and reading the counters belongs to the next interval;
        # there are more of them where other work comes between
        booked = interval.samples + sum(interval.skipped.values())
        assert interval.interrupts == booked
        differences.append(abs(interrupts - booked))
        assert len(differences) < 10, differences
    assert interval.kernel_ns > interval.samples * 100
    assert interval.kernel_ns < interval.duration_ns
    assert abs(interval.start_ns / 1e9 + interval.duration_ns / 1e9 - time.time()) < 60


def test_idle_is_left_out(collector: CpuCollector) -> None:
    interval = take(collector, None).interval

    assert all(key.tgid != 0 for key in interval.counts)
    assert interval.interrupts >= interval.samples


def test_intervals_share_no_samples_and_stacks_name_theirs(
    collector: CpuCollector, busy: Busy
) -> None:
    process, _ = busy
    profiles, used_s = [], []
    for _ in range(3):
        before_s = cpu_seconds(process.pid)
        profiles.append(take(collector, cpu_seconds_later(process, 0.5)))
        used_s.append(cpu_seconds(process.pid) - before_s)

    stacks = {(s.interval, s.stack_key) for p in profiles for s in p.sent}
    numbers = [profile.interval.number for profile in profiles]
    assert numbers == [numbers[0], numbers[0] + 1, numbers[0] + 2]
    for profile, cpu_s in zip(profiles, used_s, strict=True):
        # whatever an interval counts was sent in that interval, even if an earlier one sent it too
        keys = {(profile.interval.number, key.stack_key) for key in profile.interval.counts}
        assert keys <= stacks
        # of about half a second of CPU at 199 Hz; all three together would be three times that
        assert 50 < profile.samples_of(process.pid) < 1.5 * 199 * (cpu_s + 0.1)
    starts = [profile.interval.start_ns for profile in profiles]
    assert starts == sorted(starts)


def test_full_maps_are_counted_as_lost(busy: Busy) -> None:
    process, _ = busy
    collector = CpuCollector(rate_hz=499, max_samples=1, interval_s=10)
    collector.start()
    try:
        interval = take(collector, cpu_seconds_later(process, 0.5)).interval
    finally:
        collector.stop()

    assert len(interval.counts) <= 1 + 64  # the kernel adds a spare entry a CPU
    assert interval.lost["count_map_full"] > 0


def test_a_full_ring_is_counted_and_the_sample_kept() -> None:
    # sized for few stacks and a long interval, then sampled fast while nobody reads
    collector = CpuCollector(rate_hz=19, max_samples=100_000, interval_s=200)
    # every new thread name makes a new key, whose stack is sent again
    script = (
        "while True:\n"
        "    for number in range(100_000):\n"
        "        with open('/proc/self/comm', 'w') as file:\n"
        "            file.write(str(number))\n"
    )
    process = subprocess.Popen(["/usr/bin/python3", "-c", script], text=True)
    collector.start()
    try:
        collector.set_rate(999)
        later = cpu_seconds_later(process, 4.0)
        end = time.monotonic() + 600
        while not later() and time.monotonic() < end:
            time.sleep(0.2)
        interval = collector.take_interval()
        sent = collector.poll()
    finally:
        process.kill()
        process.wait()
        collector.stop()

    sent_keys = {(s.stack_key, s.thread_name) for s in sent}
    unsent = [key for key in interval.counts if (key.stack_key, key.thread_name) not in sent_keys]
    # not equal: stacks of the next interval were refused as well until the ring was read
    assert interval.lost["ring_full"] >= len(unsent) > 0
    assert interval.samples > len(sent)


def test_only_the_process_asked_for_is_sampled(busy: Busy, dd: subprocess.Popen[str]) -> None:
    process, _ = busy
    collector = CpuCollector(199, 100_000, 10, only_tgid=process.pid)
    collector.start()
    try:
        interval = take(collector, cpu_seconds_later(process, 0.5)).interval
    finally:
        collector.stop()

    assert {key.tgid for key in interval.counts} == {process.pid}
    assert interval.skipped["other_process"] > 0


def test_silence_of_user_space_stops_the_counting_and_a_beat_resumes_it(busy: Busy) -> None:
    process, _ = busy
    collector = CpuCollector(199, 100_000, 10, heartbeat_limit_s=0.2)
    collector.start()
    try:
        collector.poll()
        time.sleep(0.3)
        later = cpu_seconds_later(process, 0.5)
        while not later():
            time.sleep(0.05)
        silent = collector.take_interval()
        # each poll is a beat, which lasts for 0.2 s: between two there may be more
        awake = take(collector, cpu_seconds_later(process, 2.0))
    finally:
        collector.stop()

    assert silent.skipped["silent"] > 20
    # those of the 0.2 s until the silence was noticed, and no more
    assert silent.samples < silent.skipped["silent"]
    assert awake.samples_of(process.pid) > 20


def test_at_rate_zero_nothing_is_sampled_until_there_is_a_rate_again(
    collector: CpuCollector, busy: Busy
) -> None:
    process, _ = busy
    collector.set_rate(0)
    collector.take_interval()
    paused = take(collector, cpu_seconds_later(process, 0.3))

    collector.set_rate(199)
    resumed = take(collector, cpu_seconds_later(process, 0.3))

    assert paused.interval.interrupts == 0
    assert paused.interval.counts == {}
    assert resumed.samples_of(process.pid) > 20


def test_another_rate_holds_from_then_on(collector: CpuCollector, busy: Busy) -> None:
    process, _ = busy
    collector.take_interval()

    collector.set_rate(49)
    before_s = cpu_seconds(process.pid)
    collector.take_interval()
    profile = take(collector, cpu_seconds_later(process, 1.0))
    used_s = cpu_seconds(process.pid) - before_s

    assert collector.rate_hz == 49
    # 49 a second of CPU time; at 199 Hz it would be 200
    assert 30 < profile.samples_of(process.pid) < 100 * used_s


def test_map_memory_is_what_the_kernel_accounts(collector: CpuCollector) -> None:
    assert 500_000 < collector.map_bytes() < 16 * 1024 * 1024


def loaded_programs() -> list[int]:
    """Ids of the BPF programs that this process has open."""
    found = []
    for fdinfo in Path("/proc/self/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # the descriptor of the folder itself
            lines = fdinfo.read_text().splitlines()
            found += [int(line.split()[1]) for line in lines if line.startswith("prog_id:")]
    return found


def is_loaded(program_id: int) -> bool:
    fd: int = library().bpf_prog_get_fd_by_id(program_id)
    if fd >= 0:
        os.close(fd)
    return fd >= 0


def test_stop_leaves_nothing_loaded() -> None:
    assert loaded_programs() == []
    collector = CpuCollector(99, 1000, 10)
    collector.start()
    (program,) = loaded_programs()
    assert is_loaded(program)

    collector.stop()
    collector.stop()

    assert loaded_programs() == []
    end = time.monotonic() + 300
    while is_loaded(program) and time.monotonic() < end:
        time.sleep(0.05)  # the kernel frees programs after a grace period
    assert not is_loaded(program)
