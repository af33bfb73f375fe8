"""Where a process's memory is read from, and what is taken of it."""

import os
import subprocess
from pathlib import Path

import pytest

from node_agent.overhead.usage import (
    Memory,
    MemoryAccount,
    own_cpu_ns,
    own_unit_group,
    own_usage,
    parse_anonymous,
    parse_memory_stat,
)

# as a 6.1 and a 5.10 kernel write it, shortened
STAT_6_1 = "anon 9000000\nfile 5000\nkernel 3000000\nkernel_stack 16384\npagetables 90112\nslab 9\n"
STAT_5_10 = "anon 9000000\nfile 5000\nkernel_stack 16384\npercpu 100\nslab 50000\n"


def test_anon_and_kernel_are_added() -> None:
    assert parse_memory_stat(STAT_6_1) == Memory(12_000_000, has_kernel=True)


def test_without_a_kernel_line_its_parts_are_added_and_the_maps_are_missing() -> None:
    assert parse_memory_stat(STAT_5_10) == Memory(9_066_484, has_kernel=False)


def test_anonymous_memory_is_read_in_bytes() -> None:
    assert parse_anonymous("Rss: 100 kB\nAnonymous:   20 kB\nAnonHugePages: 4 kB\n") == 20_480


@pytest.mark.parametrize(
    ("membership", "procs", "found"),
    [
        ("0::/system.slice/flamefleet-sampler.service\n", "77\n", True),
        ("9:name=systemd:/x\n0::/system.slice/flamefleet-sampler.service\n", "77\n", True),
        ("0::/system.slice/flamefleet-sampler.service\n", "1\n77\n", False),  # not alone
        ("0::/user.slice/session-1.scope\n", "77\n", False),
        ("0::/\n", "77\n", False),
        ("4:memory:/system.slice/flamefleet-sampler.service\n", "77\n", False),  # version 1
    ],
)
def test_only_a_unit_of_our_own_counts(
    tmp_path: Path, membership: str, procs: str, found: bool
) -> None:
    group = tmp_path / "system.slice/flamefleet-sampler.service"
    group.mkdir(parents=True)
    (group / "cgroup.procs").write_text(procs)
    (group / "memory.stat").write_text(STAT_6_1)

    assert own_unit_group(tmp_path, membership, 77) == (group if found else None)


def test_a_unit_without_the_memory_controller_has_no_account(tmp_path: Path) -> None:
    group = tmp_path / "a.service"
    group.mkdir()
    (group / "cgroup.procs").write_text("77\n")

    assert own_unit_group(tmp_path, "0::/a.service\n", 77) is None


def test_ended_children_are_in_the_cpu_time() -> None:
    before = own_cpu_ns()
    subprocess.run(["sh", "-c", "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done"], check=True)

    children_ns = os.times().children_user * 1e9  # in ticks of 10 ms: only a lower bound
    assert own_cpu_ns() - before > 5_000_000
    assert own_cpu_ns() >= children_ns


def test_this_process_has_memory_and_an_id() -> None:
    usage = own_usage(MemoryAccount())

    assert usage.pid == os.getpid()
    assert 1_000_000 < usage.memory_bytes < 10_000_000_000
