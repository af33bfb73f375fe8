"""The CPU collector on the kernels that Debian ships, booted under emulation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from node_agent.collectors.running import CORE_MAPS, MAPS

PROBE = "python3 -B /opt/probe.py"
DD = "dd=dd if=/dev/zero of=/dev/null bs=64k"
# one boot for all: the initial PID namespace, exclusions, a CPU that goes and comes back, then a
# nested namespace with a load outside of it
SCRIPT = f"""
set -e
{PROBE} 100 busy=/opt/busy '{DD}'
python3 -B /opt/walk.py /opt/walk /opt/walk.rows
python3 -B /opt/exclude.py /opt/busy 30
python3 -B /opt/remains.py
python3 -B /opt/hotplug.py
python3 -B /opt/throttle.py
/opt/busy >/dev/null &
unshare --pid --fork --mount-proc {PROBE} 50 busy=/opt/busy
"""
OLDEST = "bullseye"
PYTHON = "python3 -B /opt/python_frames.py 100 alone self -B /opt/modes.py"


def judge_python(found: dict[str, Any]) -> None:
    """Most samples have Python frames, and those in the end of a chain have the whole of it. How
    many are in the end is left open: the way there takes the longer, the slower the machine."""
    chains = [chain for ways in found["said"].values() for chain in ways]
    spinning = exact = named = total = 0
    for frames, count, _, _ in found["stacks"]:
        python = [frame[1:] for frame in frames]
        total += count
        named += count * bool(python)
        if python and python[-1][0] in ("spin_a", "spin_b"):
            spinning += count
            exact += count * (python[:-1] in chains)
    assert named >= 0.8 * total >= 80, (named, total)
    assert spinning >= 50, (spinning, total)
    assert exact >= 0.95 * spinning, (exact, spinning)


@pytest.mark.timeout(1800)  # more than the boot's, so that the emulator is ended first
@pytest.mark.parametrize(
    ("suite", "release"), [("bullseye", "5.10."), ("bookworm", "6.1."), ("trixie", "6.12.")]
)
def test_samples_are_counted_on_this_kernel(
    boot: Callable[..., Any], kernel_root: Path, walk_program: Any, suite: str, release: str
) -> None:
    script = SCRIPT + (PYTHON if suite == OLDEST else "")
    lines = boot(suite, kernel_root, script, limit_s=1700)
    if suite == OLDEST:
        judge_python(lines.pop())
    initial, walked, excluded, remains, hotplug, throttle, nested = lines

    assert initial["release"].startswith(release)
    busy, dd = initial["programs"]["busy"], initial["programs"]["dd"]
    assert busy["samples"] >= 100, initial
    assert busy["user_depth"] > 20, initial  # the chain of frames down to main
    assert busy["start_ns"] > 0
    assert len(busy["tgids"]) == 1
    assert dd["samples"] >= 100, initial
    assert dd["kernel_depth"] >= 3, initial
    assert dd["kernel_addresses"], initial
    assert (busy["missing_stacks"], dd["missing_stacks"]) == (0, 0)
    assert initial["lost"] == {}
    assert initial["samples"] < initial["interrupts"] + 50
    assert initial["kernel_ns"] > initial["samples"] * 100
    assert 0 < initial["map_bytes"] < 16 * 1024 * 1024

    walk_program.judge(walked)
    assert walked["map_bytes"] > walked["shard_bytes"] > 0

    free = {name for name in excluded["counts"] if name.startswith("free")}
    assert len(excluded["counts"]) == 7, excluded
    assert {name for name, count in excluded["counts"].items() if count} == free, excluded
    assert min(excluded["cpu_s"].values()) >= 0.2, excluded

    # nobody else is in this kernel: a stop leaves nothing at all
    assert remains["before"] == remains["after"] == [[], []], remains
    assert remains["running"] == {"program": 1, "map": len(MAPS + CORE_MAPS), "events": 1}, remains
    assert remains["events"] == 2, remains
    assert remains["is_mine"], remains

    both, one, both_again = hotplug["rates"]  # 99 Hz a CPU; of both what was waited for
    assert both > 130, hotplug
    assert one < 130, hotplug
    assert both_again > 130, hotplug

    # one sample a tick of 250 Hz is all that is let through
    assert throttle["throttled"] < 300 < throttle["free"], throttle
    assert "the kernel throttles, kernel.perf_event_max_sample_rate is 100" in throttle["words"]

    assert nested["programs"]["busy"]["samples"] >= 50, nested
    assert nested["programs"]["busy"]["tgids"] == [2]  # 1 is the probe
    assert nested["not_in_proc"] == []
    assert nested["skipped"]["foreign_namespace"] > 20, nested
