"""What is excluded is never read: neither counted nor its stack sent, whatever it is named by."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from node_agent.collectors.cpu import CpuCollector
from node_agent.exclusions import ExcludeConfig

HERE = Path(__file__).parent
PROJECT = HERE.parent.parent


@pytest.fixture(scope="module")
def seen(busy_program: Any) -> dict[str, Any]:
    """What exclude.py saw: a load for each kind of exclusion, and some that are free."""
    output = subprocess.check_output(
        [sys.executable, HERE / "exclude.py", busy_program.path, "100"],
        text=True,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
    )
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def test_what_is_not_excluded_is_sampled(seen: dict[str, Any]) -> None:
    free = [name for name in seen["counts"] if name.startswith("free")]

    assert len(free) > 1  # alone, and in a cgroup beside the excluded ones
    assert all(seen["counts"][name] >= 30 and seen["stacks"][name] for name in free), seen


@pytest.mark.parametrize("name", ["by_user", "by_file_name", "by_path"])
def test_users_and_executables_are_never_read(seen: dict[str, Any], name: str) -> None:
    assert seen["cpu_s"][name] >= 0.3
    assert (seen["counts"][name], seen["stacks"][name]) == (0, 0)


@pytest.mark.parametrize("kind", ["by_unit", "by_cgroup"])
def test_units_and_cgroups_made_later_are_never_read(seen: dict[str, Any], kind: str) -> None:
    names = [name for name in seen["counts"] if name.startswith(kind)]

    assert names, "no cgroup hierarchy is mounted"
    for name in names:
        assert seen["cpu_s"][name] >= 0.3
        assert (seen["counts"][name], seen["stacks"][name]) == (0, 0)


def test_what_is_excluded_is_counted(seen: dict[str, Any]) -> None:
    excluded_s = sum(s for name, s in seen["cpu_s"].items() if not name.startswith("free"))

    assert seen["excluded"] > 199 * excluded_s / 2


def test_what_has_no_effect_is_said() -> None:
    deep = "/" + "/".join("abcdefghijklmnopqrst")
    exclude = ExcludeConfig(users=("nobody-of-this-name",), executables=(f"/proc/self{deep}",))
    collector = CpuCollector(19, 1000, 10, exclude=exclude)
    collector.start()
    words = collector.unresolved_exclusions
    collector.stop()

    assert words[0] == "there is no user nobody-of-this-name"
    assert "too deep" in words[1]
