"""What set-up says of its steps, through a pipe as well as on a terminal."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3]


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f"set -euo pipefail\nsource scripts/step.sh\n{script}"],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_step_is_told_as_it_begins_and_when_it_is_over() -> None:
    done = run('step "compiling" sh -c "echo noise; echo more >&2"')
    assert done.returncode == 0
    assert done.stdout == ""
    begun, ended = done.stderr.splitlines()
    assert begun == "  .. compiling"
    assert ended.startswith("  ok compiling (")


def test_a_long_step_is_told_again() -> None:
    done = run('step "pip" sleep 3', STEP_TELL_S="0.5")
    assert sum("s so far)" in line for line in done.stderr.splitlines()) >= 2


def test_a_step_that_fails_shows_its_output_and_its_status() -> None:
    done = run('step "pip" sh -c "echo the reason; exit 3"')
    assert done.returncode == 3
    assert "  !! pip: status 3 after" in done.stderr
    assert "the reason" in done.stderr


def test_its_teller_does_not_hold_the_readers_pipe() -> None:
    """Else this would be ended by the time limit."""
    done = run('step "quick" true', STEP_TELL_S="100000")
    assert done.returncode == 0


def test_each_part_of_the_set_up_is_a_step() -> None:
    texts = {name: (ROOT / name).read_text() for name in ("Makefile", "scripts/venv.sh")}
    texts["apt"] = (ROOT / "scripts/debian_packages.sh").read_text()
    assert 'step "compiling the BPF programs"' in texts["Makefile"]
    assert 'step "making the virtual environment' in texts["scripts/venv.sh"]
    assert 'step "pip: ' in texts["scripts/venv.sh"]
    assert 'step "installing Debian packages: ' in texts["apt"]
