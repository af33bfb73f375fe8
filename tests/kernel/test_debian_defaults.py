"""A whole sampler on a kernel as Debian sets it up, booted under emulation: refused by a sysctl,
detached by a warning that the kernel really gives, held back by a version 2 control group."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from node_agent.errors import EXIT_DETACHED, EXIT_IMPOSSIBLE

SCRIPT = """
set -e
python3 -B /opt/unit_limits.py
python3 -B /opt/complaint.py
"""


@pytest.mark.timeout(950)  # more than the boot's, so that the emulator is ended first
@pytest.mark.parametrize(
    ("suite", "release"),
    [
        ("bullseye", "5.10."),
        pytest.param("bookworm", "6.1.", marks=pytest.mark.long),
        pytest.param("trixie", "6.12.", marks=pytest.mark.long),
    ],
)
def test_a_sampler_on_debians_kernel(
    boot: Callable[..., Any], naming_root: Path, suite: str, release: str
) -> None:
    limits, found = boot(suite, naming_root, SCRIPT)
    assert found["release"].startswith(release)
    judge_limits(limits)

    # Debian's kernels deny perf events to whoever has CAP_PERFMON only
    assert found["level"] == "3"
    code, words = found["denied"]
    assert code == EXIT_IMPOSSIBLE, words
    assert "sysctl -w kernel.perf_event_paranoid=2" in words

    # a warning of the kernel's own that names perf: the sampler leaves the kernel and says why
    warning = next(line for line in found["log"].splitlines() if "WARNING: " in line)
    assert "perf_trace_buf_alloc" in warning, found["log"]
    code, words = found["detached"]
    assert code == EXIT_DETACHED, words
    assert f"stays detached: {warning.partition('] ')[2]}" in words


def judge_limits(found: dict[str, Any]) -> None:
    """Each step met its limit, which was told with its size; the counters are the kernel's.

    A step may meet another one's too: the kernel counts a period of the quota at its end.
    """
    begin, busy, reader, greedy = found["states"]
    assert (begin["quota_percent"], begin["memory_high_bytes"]) == (20, 24 << 20)
    assert begin["memory_max_bytes"] == 48 << 20
    assert not any(begin[name] for name in ("throttled", "memory_high", "memory_max", "oom_kills"))
    assert busy["throttled"] > 0, found
    assert busy["throttled_us"] > 0, found
    assert reader["memory_high"] > 0, found
    assert greedy["memory_max"] > 0, found
    assert greedy["oom_kills"] == 1, found

    held, slowed, killed = found["told"]
    assert (held["ended"], slowed["ended"], killed["ended"]) == (0, 0, -9), found
    assert "the sampler was held back by CPUQuota=20%" in held["met"]["cpu_quota"]
    assert "the sampler met MemoryHigh=24M" in slowed["met"]["memory_high"]
    assert "the sampler met MemoryMax=48M" in killed["met"]["memory_max"]
    assert "was killed for want of memory (MemoryMax=48M)" in killed["met"]["oom"]
