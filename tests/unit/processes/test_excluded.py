"""Who is excluded, by what /proc says of this very process and of one that has ended."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from node_agent.exclusions import ExcludeConfig
from node_agent.processes.excluded import ExcludedProcesses, is_cgroup_excluded

PROGRAM = Path(sys.executable).resolve()
USER = os.getuid()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ExcludeConfig(), False),
        (ExcludeConfig(users=(str(USER),)), True),
        (ExcludeConfig(users=(pwd.getpwuid(USER).pw_name,)), True),
        (ExcludeConfig(users=("61234", "nobody-of-this-name")), False),
        (ExcludeConfig(executables=(PROGRAM.name,)), True),
        (ExcludeConfig(executables=(str(PROGRAM),)), True),
        (ExcludeConfig(executables=(sys.executable,)), True),  # a symbolic link
        (ExcludeConfig(executables=(PROGRAM.name[1:], f"/elsewhere/{PROGRAM.name}")), False),
        (ExcludeConfig(cgroups=("/no/such", "/no")), False),
        (ExcludeConfig(units=("no-such.service",)), False),
    ],
)
def test_this_process(config: ExcludeConfig, expected: bool) -> None:
    assert ExcludedProcesses(config).covers(os.getpid()) is expected


V2 = "0::/system.slice/secret.service/inner\n"
V1 = "4:memory:/elsewhere\n9:name=systemd:/system.slice/_cpu.service\n0::/\n"


@pytest.mark.parametrize(
    ("text", "config", "expected"),
    [
        (V2, ExcludeConfig(units=("secret.service",)), True),
        (V2, ExcludeConfig(units=("system.slice",)), True),
        (V2, ExcludeConfig(units=("other.service",)), False),
        (V2, ExcludeConfig(cgroups=("/system.slice/secret.service",)), True),
        (V2, ExcludeConfig(cgroups=("/system.slice/secret.service/inner",)), True),
        (V2, ExcludeConfig(cgroups=("/system.slice/secret", "/inner")), False),
        (V1, ExcludeConfig(units=("cpu.service",)), True),
        (V1, ExcludeConfig(cgroups=("/elsewhere",)), False),  # not where systemd keeps units
    ],
)
def test_a_process_in_a_cgroup(text: str, config: ExcludeConfig, expected: bool) -> None:
    assert is_cgroup_excluded(text, config) is expected


def test_of_a_process_that_has_ended_nothing_can_be_told() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()

    assert ExcludedProcesses(ExcludeConfig(executables=("any",))).covers(process.pid)
    assert not ExcludedProcesses(ExcludeConfig()).covers(process.pid)
