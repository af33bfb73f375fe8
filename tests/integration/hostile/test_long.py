"""The bench's attacks on a real centre: memory stays bounded, and it answers. Speeds are the
bench's own affair."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.hostile_attacks import ATTACKS
from benchmarks.hostile_report import GOAL_MEMORY_MIB

ROOT = Path(__file__).parents[3]
SECONDS = 30


@pytest.mark.long
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_takes_neither_memory_nor_health(attack, tmp_path):
    output = tmp_path / "hostile.json"
    command = [sys.executable, "-m", "benchmarks.hostile", "--attacks", attack]
    command += ["--seconds", str(SECONDS), "--output", str(output)]

    subprocess.run(command, cwd=ROOT, env=os.environ, check=True, timeout=1_000)

    without, attacked = json.loads(output.read_text())["minutes"]
    assert attacked["batches"] > 0
    assert attacked["batches_refused"] == without["batches_refused"] == {}
    assert (attacked["health_failed"], without["health_failed"]) == (0, 0)
    assert attacked["memory_peak_mib"] < GOAL_MEMORY_MIB
    assert attacked["log_bytes"] < 1 << 20
