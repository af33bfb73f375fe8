"""Children that read foreign files can compute, and nothing else."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from confinement.seccomp import Rule, assemble

ATTEMPTS = Path(__file__).with_name("attempts.py")
NOBODY, ORDINARY = 65534, 61_234
SECRET = "an environment that no child may read"


SHARES = Path(__file__).parents[2] / "data" / "programs" / "shares.c"
BUILD_ID = "5ec0" * 10


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("confined") / "program"
    subprocess.run(["gcc", f"-Wl,--build-id=0x{BUILD_ID}", "-o", path, SHARES], check=True)
    return path


def run(side: str, user: int, program: Path, *killer: str) -> "subprocess.CompletedProcess[str]":
    if os.geteuid() != 0:
        pytest.skip("needs root, to be both users")
    return subprocess.run(
        [sys.executable, ATTEMPTS, side, str(user), program, *killer],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ATTEMPTS.parents[3]), "SECRET": SECRET},
    )


@pytest.mark.parametrize("user", [0, ORDINARY])
@pytest.mark.parametrize("side", ["agent", "centre"])
def test_a_child_can_do_nothing_but_its_work(side: str, user: int, program: Path) -> None:
    done = run(side, user, program)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert {name: error for name, error in answer["errors"].items() if error != 1} == {}
    assert answer["parsed"] == BUILD_ID
    assert answer["uid"] == (user or NOBODY)


@pytest.mark.parametrize("killer", ["int80", "x32"])
def test_calls_of_another_architecture_end_the_child(killer: str, program: Path) -> None:
    assert run("agent", 0, program, killer).returncode == -signal.SIGSYS


def test_a_rule_compares_what_is_below_its_mask() -> None:
    """Each instruction has 8 bytes; a rule jumps over its own when the number is another."""
    program = assemble([1], [Rule(9, 2, 4, 0)])
    assert len(program) == 8 * (6 + 2 + 6 + 1)
