"""`flamefleet-agent check` on the host that runs the tests, as root and as nobody."""

import asyncio
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


# --production


def names_of(done: subprocess.CompletedProcess[str], state: str) -> set[str]:
    checks = json.loads(done.stdout)
    prefix = "production: "
    return {
        check["name"].removeprefix(prefix)
        for check in checks
        if check["name"].startswith(prefix) and check["state"] == state
    }


@needs_root
def test_production_names_what_is_missing(tmp_path):
    config = tmp_path / "agent.toml"
    config.write_text('[agent]\npreset = "debug"\n[ship]\nurl = "http://127.0.0.1:9"\n')
    done = agent("check", "--production", "--json", "--config", str(config))
    assert done.returncode == 1, done.stdout + done.stderr
    lacking = names_of(done, "missing")
    assert {"rate", "flamefleet-sampler", "flamefleet-shipper", "monitoring", "alerting"} <= lacking
    assert {"kernel", "BTF", "configuration", "breaker"} <= names_of(done, "ok")

    table = agent("check", "--production", "--config", str(config))
    assert table.returncode == 1
    assert "Not ready for production, missing: rate," in table.stdout
    assert max(map(len, table.stdout.splitlines())) <= 80
    assert "http://127.0.0.1:9 cannot be reached" in " ".join(table.stdout.split())


@needs_root
def test_production_with_a_faulty_configuration(tmp_path):
    config = tmp_path / "agent.toml"
    config.write_text("[agent]\nrate_hz = 0\n")
    done = agent("check", "--production", "--json", "--config", str(config))
    assert done.returncode == 1, done.stderr
    [check] = [c for c in json.loads(done.stdout) if c["name"] == "production: configuration"]
    assert check["state"] == "missing"
    assert "rate_hz is 0" in check["why"]


async def test_production_asks_the_aggregator(client, centre_config, tmp_path):
    """A real aggregator: reachable and ready, and it tells that it has no webhook."""
    from node_agent.config import load_config
    from node_agent.preflight.production_facts import read_production_facts

    config = load_config(None, {}, {"url": str(client.make_url("")), "spool_dir": tmp_path})
    facts = await asyncio.to_thread(read_production_facts, config, "", tmp_path / "none")
    assert facts.monitoring is None
    assert facts.webhooks == len(centre_config.webhooks) == 0
    assert facts.broker_is_closed is True
    assert facts.file_capabilities is None
