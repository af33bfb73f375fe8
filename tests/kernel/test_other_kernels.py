"""The CPU collector on the kernels that Debian ships, booted under emulation."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def run_under(suite: str, root: Path, *command: str) -> dict[str, Any]:
    """The JSON that `command` prints last on the kernel of a Debian suite."""
    done = subprocess.run(
        [HERE / "kernels.sh", "run", suite, root, "--", *command],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"KERNELS_TIMEOUT": "200"},
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


@pytest.mark.parametrize(
    ("suite", "release"), [("bullseye", "5.10."), ("bookworm", "6.1."), ("trixie", "6.12.")]
)
def test_samples_are_counted_on_this_kernel(kernel_root: Path, suite: str, release: str) -> None:
    dd = "dd if=/dev/zero of=/dev/null bs=64k"

    found = run_under(suite, kernel_root, "python3", "-B", "/opt/probe.py", "3", "/opt/busy", dd)

    assert found["release"].startswith(release)
    busy_found, dd_found = found["programs"]
    # two processes on two emulated CPUs for 6 s at 99 Hz: most of 600 samples each
    assert busy_found["samples"] > 100, found
    assert busy_found["user_depth"] > 20, found  # the chain of frames down to main
    assert busy_found["start_ns"] > 0
    assert busy_found["thread_names"] == ["busy"]
    assert dd_found["samples"] > 100, found
    assert dd_found["kernel_depth"] >= 3, found
    assert dd_found["kernel_addresses"], found
    assert [p["missing_stacks"] for p in found["programs"]] == [0, 0]
    assert found["lost"] == [{}, {}]
    assert all(ns > 0 for ns in found["kernel_ns"])
    assert 0 < found["map_bytes"] < 16 * 1024 * 1024
