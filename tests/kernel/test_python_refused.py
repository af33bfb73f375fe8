"""CPythons whose frames can't be read: said and counted, with whole native stacks."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
PROJECT = HERE.parent.parent
MODES = PROJECT / "tests/data/programs/python/modes.py"
SAMPLES = 300
pytestmark = pytest.mark.timeout(900)  # a slow machine takes its time


def record(rows: Path, *command: str | Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, HERE / "python_frames.py", str(SAMPLES), "on", *command],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "ROWS": str(rows)},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_free_threaded_build_has_whole_native_stacks(tmp_path: Path) -> None:
    # Debian has no free-threaded build: its own under such a name is taken for one.
    name = "python3.13t"
    program = tmp_path / name
    shutil.copy(Path("/usr/bin/python3").resolve(), program)

    found = record(tmp_path / "rows", "env", "PYTHONHOME=/usr", program, MODES)

    assert found["programs"] == {"refused": 1}
    assert "free-threaded" in found["refused"][name]
    total = sum(count for _, count, _, _ in found["stacks"])
    whole = [stack for stack in found["stacks"] if stack[2] == "COMPLETE"]
    assert total >= SAMPLES
    assert sum(count for _, count, _, _ in whole) >= 0.98 * total
    assert {python_end for _, _, _, python_end in found["stacks"]} == {"NONE"}
    modules = {frame[0] for frames, _, _, _ in whole for frame in frames}
    assert name in modules
    assert "python" not in modules
