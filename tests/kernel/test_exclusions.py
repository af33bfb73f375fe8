"""What is excluded is never read: neither counted nor its stack sent, whatever it is named by."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from node_agent.collectors.cpu import CpuCollector
from node_agent.collectors.stacks import RawStack
from node_agent.exclusions import ExcludeConfig
from node_agent.normalize import Normalizer
from node_agent.processes.excluded import ExcludedProcesses
from node_agent.processes.identity import Identities
from node_agent.symbols.kallsyms import KernelFrames
from node_agent.symbols.modules import ModuleRegistry

HERE = Path(__file__).parent
PROJECT = HERE.parent.parent
pytestmark = pytest.mark.timeout(900)  # a slow machine takes its time


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


class Definitions(dict[bytes, bytes]):
    """Frames by stack hash."""

    def knows(self, stack_hash: bytes) -> bool:
        return stack_hash in self

    def add(self, stack_hash: bytes, packed: bytes) -> None:
        self[stack_hash] = packed


@pytest.mark.parametrize("is_excluded", [True, False])
def test_a_process_that_becomes_an_excluded_one_is_not_read_any_more(
    busy_program: Any, tmp_path: Path, is_excluded: bool, wait_until: Callable[..., Any]
) -> None:
    """Its sample is of before, and /proc is of now."""
    program = tmp_path / f"becomes-{os.urandom(4).hex()}"
    shutil.copy(busy_program.path, program)
    exclude = ExcludeConfig(executables=(str(program),) if is_excluded else ("nobody",))
    code = (
        "import os, select, sys\n"
        "while not select.select([0], [], [], 0)[0]: sum(range(10000))\n"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    collector = CpuCollector(499, 10_000, 10, exclude=exclude)
    command = [sys.executable, "-c", code, program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        collector.start()
        try:
            raw: list[RawStack] = []
            wait_until(
                lambda: (
                    bool(raw.extend(s for s in collector.poll() if s.process.tgid == process.pid))
                    or bool(raw)
                ),
                "a sample of before",
            )
            assert process.stdin is not None
            process.stdin.close()
            exe = Path(f"/proc/{process.pid}/exe")
            wait_until(lambda: exe.resolve() == program, "the other program")
            registry, definitions = ModuleRegistry(), Definitions()
            normalizer = Normalizer(registry, KernelFrames(registry), definitions, 1000)
            identities = Identities({}, normalizer.main_build_id)
            normalizer.is_excluded = identities.is_excluded = ExcludedProcesses(exclude).covers

            normalizer.add(raw[0])
            labels = identities.labels(raw[0].process, 0, "before", False)
        finally:
            collector.stop()
            process.kill()

    modules = {module.name for module in registry.modules.values()}
    assert (program.name in modules) == (not is_excluded)
    assert labels["executable"] == ("before" if is_excluded else program.name)
    assert ("build_id" in labels) == (not is_excluded)
