"""A locked-down kernel: refused in words, or sampled where that is allowed."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
SCRIPT = "mount -t securityfs none /sys/kernel/security; python3 -B /opt/lockdown.py"


@pytest.fixture
def run_locked(boot: Callable[..., Any], kernel_root: Path) -> Callable[[str], dict[str, Any]]:
    """run_locked(mode): what lockdown.py prints on Debian's 6.1 booted in that mode."""
    shutil.copy(HERE / "lockdown.py", kernel_root / "opt")

    def run(mode: str) -> dict[str, Any]:
        append = f"lsm=lockdown lockdown={mode}"
        found: dict[str, Any]
        (found,) = boot("bookworm", kernel_root, SCRIPT, limit_s=1100, append=append)
        assert f"[{mode}]" in found["mode"]
        return found

    return run


def test_confidentiality_is_refused_in_words(run_locked: Callable[[str], dict[str, Any]]) -> None:
    found = run_locked("confidentiality")

    assert found["check"]["code"] == 3
    line = found["check"]["lines"]["lockdown"]
    assert line["state"] == "refused"
    assert line["remedy"] == "boot with lockdown=integrity"
    assert "confidentiality" in line["why"]
    assert "lockdown=confidentiality" in found["sampler"]["words"], found
    assert found["sampler"]["remedy"], found


@pytest.mark.long
def test_integrity_does_not_hinder(run_locked: Callable[[str], dict[str, Any]]) -> None:
    found = run_locked("integrity")

    assert found["check"]["lines"]["lockdown"]["state"] == "ok"
    assert found["sampler"].get("samples", 0) >= 50, found["sampler"]
    assert found["sampler"]["kernel_addresses"], found["sampler"]
