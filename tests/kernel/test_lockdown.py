"""A locked-down kernel: refused in words, or sampled where that is allowed."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
SCRIPT = "mount -t securityfs none /sys/kernel/security; python3 -B /opt/lockdown.py"


def run_locked(root: Path, mode: str) -> dict[str, Any]:
    """What lockdown.py prints on Debian's 6.1 booted in `mode`."""
    shutil.copy(HERE / "lockdown.py", root / "opt")
    done = subprocess.run(
        [HERE / "kernels.sh", "run", "bookworm", root, "--", "sh", "-c", SCRIPT],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ
        | {"KERNELS_TIMEOUT": "1100", "KERNELS_APPEND": f"lsm=lockdown lockdown={mode}"},
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    (line,) = (line for line in done.stdout.splitlines() if '"release"' in line)
    found: dict[str, Any] = json.loads(line[line.find("{") :])
    assert f"[{mode}]" in found["mode"]
    return found


def test_confidentiality_is_refused_in_words(kernel_root: Path) -> None:
    found = run_locked(kernel_root, "confidentiality")

    assert found["check"]["code"] == 3
    line = found["check"]["lines"]["lockdown"]
    assert line["state"] == "refused"
    assert line["remedy"] == "boot with lockdown=integrity"
    assert "confidentiality" in line["why"]
    assert "lockdown=confidentiality" in found["sampler"]["words"], found
    assert found["sampler"]["remedy"], found


@pytest.mark.long
def test_integrity_does_not_hinder(kernel_root: Path) -> None:
    found = run_locked(kernel_root, "integrity")

    assert found["check"]["lines"]["lockdown"]["state"] == "ok"
    assert found["sampler"].get("samples", 0) >= 50, found["sampler"]
    assert found["sampler"]["kernel_addresses"], found["sampler"]
