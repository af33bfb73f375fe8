"""`flamefleet-agent check` on the host that runs the tests, as root and as nobody."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
NAMES = {
    "machine",
    "kernel",
    "BTF",
    "mode",
    "libbpf",
    "lockdown",
    "CAP_BPF",
    "CAP_PERFMON",
    "CAP_SYS_PTRACE",
    "CAP_DAC_READ_SEARCH",
    "CAP_SYSLOG",
    "perf_event_open",
    "perf_event_paranoid",
    "kptr_restrict",
    "PID namespace",
    "tracefs",
    "cgroups",
    "CPU collector",
}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def agent(*arguments: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, sys.executable, "-m", "node_agent", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


@pytest.fixture
def agent_as_nobody(open_packages: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """agent_as_nobody(*arguments): the agent as a user who may not even read the checkout."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv to become an unprivileged user")
    code = (
        f"import sys; sys.path.insert(0, {open_packages!r})\n"
        "from node_agent.cli import main; sys.exit(main(sys.argv[1:]))"
    )

    def run(*arguments: str, python: Path | None = None) -> subprocess.CompletedProcess[str]:
        interpreter = str(python or Path(sys.executable).resolve())
        return subprocess.run(
            [*AS_NOBODY, interpreter, "-I", "-c", code, *arguments],
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def states(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    return {check["name"]: check["state"] for check in json.loads(done.stdout)}


@needs_root
def test_root_can_profile_this_host():
    done = agent("check", "--json")
    assert done.returncode == 0, done.stdout
    found = states(done)
    assert set(found) == NAMES
    assert "refused" not in found.values()
    for check in json.loads(done.stdout):
        assert set(check) == {"name", "state", "why", "remedy"}
        assert check["why"]
        assert bool(check["remedy"]) == (check["state"] != "ok")


@needs_root
def test_the_table_fits_80_columns():
    done = agent("check")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1].startswith("This host can be profiled")
    assert "\x1b" not in done.stdout


def test_an_unprivileged_user_is_refused_with_3(agent_as_nobody):
    done = agent_as_nobody("check", "--json")
    assert done.returncode == 3, done.stderr
    found = states(done)
    for name in ("CAP_BPF", "CAP_PERFMON", "perf_event_open", "CPU collector"):
        assert found[name] == "refused"
    for name in ("CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_SYSLOG"):
        assert found[name] == "degraded"
    assert found["BTF"] == found["kernel"] == "ok"
    table = agent_as_nobody("check")
    assert table.returncode == 3
    assert "Profiling is impossible here" in table.stdout


@pytest.mark.parametrize("missing", ["bpf", "perfmon"])
@needs_root
def test_root_without_one_capability_is_refused(missing):
    before = ("setpriv", f"--bounding-set=-{missing},-sys_admin")
    done = agent("check", "--json", before=before)
    assert done.returncode == 3
    found = {check["name"]: check for check in json.loads(done.stdout)}
    refused = found[f"CAP_{missing.upper()}"]
    assert refused["state"] == "refused"
    assert f"--cap-add {missing.upper()}" in refused["remedy"]


def test_record_and_run_without_privileges_are_3_and_name_check(agent_as_nobody, tmp_path):
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents[:2]:
        folder.chmod(folder.stat().st_mode | 0o711)
    output = tmp_path / "x.folded"
    done = agent_as_nobody("record", "--seconds", "1", "-o", str(output))
    assert done.returncode == 3
    assert "flamefleet-agent check" in done.stderr
    assert "Traceback" not in done.stderr
    assert not output.exists()
    done = agent_as_nobody("run", "--spool-dir", str(tmp_path / "spool"))
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr


def test_permitted_capabilities_are_raised(agent_as_nobody, tmp_path):
    """What setcap +p gives: permitted, not effective. A copy of the interpreter carries them."""
    if shutil.which("setcap") is None:
        pytest.skip("needs setcap")
    python = tmp_path / "python"
    shutil.copy(Path(sys.executable).resolve(), python)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o711)
    names = "cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search,cap_syslog"
    subprocess.run(["setcap", f"{names}+p", str(python)], check=True)
    done = agent_as_nobody("check", "--json", python=python)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "refused" not in states(done).values()
