"""An agent that itself runs in a nested PID namespace, as in a container or on a test host."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from node_agent.kernel.errors import NamespaceError

HERE = Path(__file__).parent
PROJECT = HERE.parent.parent


@pytest.fixture
def found(
    busy: tuple[subprocess.Popen[str], list[int]], busy_program: Any, tmp_path: Path
) -> dict[str, Any]:
    """What the probe sees in a namespace of its own: one load beside it, one a level deeper.

    The fixture `busy` runs outside and must not be seen.
    """
    deeper = tmp_path / "deeper"  # another name for the same load
    deeper.symlink_to(busy_program.path)
    output = subprocess.check_output(
        [
            *("unshare", "--pid", "--fork", "--mount-proc", "--kill-child"),
            *(sys.executable, HERE / "probe.py", "60", f"busy={busy_program.path}"),
            f"deeper=unshare --pid --fork --kill-child {deeper}",
        ],
        text=True,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
    )
    seen: dict[str, Any] = json.loads(output.splitlines()[-1])
    return seen


def test_processes_carry_the_ids_of_the_agents_own_namespace(found: dict[str, Any]) -> None:
    for name in ("busy", "deeper"):
        program = found["programs"][name]
        assert program["samples"] >= 60, found
        assert program["user_depth"] > 20
        assert len(program["tgids"]) == 1
        assert program["tgids"][0] < 100  # a new namespace counts from 1
        assert found["in_proc"][str(program["tgids"][0])] == name


def test_processes_outside_are_left_out_and_counted(found: dict[str, Any]) -> None:
    assert all(int(tgid) < 100 for tgid in found["in_proc"])
    assert len(found["not_in_proc"]) <= 1  # an `unshare` that has ended
    assert found["skipped"]["foreign_namespace"] > 20


def test_a_proc_of_another_namespace_is_refused_in_words() -> None:
    code = (
        "from node_agent.kernel.errors import NamespaceError\n"
        "from node_agent.collectors.cpu import CpuCollector\n"
        "try: CpuCollector(19, 1000, 10).start()\n"
        "except NamespaceError as error: print(error, error.remedy)"
    )
    said = subprocess.check_output(
        ["unshare", "--pid", "--fork", sys.executable, "-c", code], text=True, cwd=PROJECT
    )

    assert NamespaceError.__name__ not in said
    assert "is 1 to itself" in said
    assert "Mount a proc file system" in said
