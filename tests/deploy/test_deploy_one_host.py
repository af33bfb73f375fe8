"""The playbooks against one real host over ssh, in the order in which an operator uses them."""

import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(1800)
PATIENCE_S = 300.0

CAPABILITIES = {"cap_bpf", "cap_perfmon", "cap_sys_ptrace", "cap_dac_read_search", "cap_syslog"}
INTERPRETER = "/opt/flamefleet/bin/flamefleet-python"


def recap(done: "subprocess.CompletedProcess[str]") -> dict[str, int]:
    """Counters of the play recap: ok, changed, unreachable, failed, ..."""
    line = done.stdout.rsplit("PLAY RECAP", 1)[-1]
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", line)}


@pytest.fixture(scope="module")
def trap(in_host: Callable[..., str]) -> str:
    """A file that the agent's users make whenever their Python looks at the host's packages."""
    sprung = "/var/lib/flamefleet/sprung"
    line = "import os; os.access('/var/lib/flamefleet', 2) and os.getuid() and "
    code = f"{line}open('{sprung}', 'w')"
    in_host("sh", "-c", 'echo "$1" >/usr/lib/python3/dist-packages/trap.pth', "sh", code)
    return sprung


@pytest.fixture(scope="module")
def deployed(playbooks: Any, busy_unit: str, trap: str) -> "subprocess.CompletedProcess[str]":
    """The first run of deploy.yml."""
    done: subprocess.CompletedProcess[str] = playbooks.run("deploy")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done


def test_a_host_without_btf_is_refused_in_words(playbooks: Any) -> None:
    # WHEN the kernel that is asked for is newer than any host's
    done = playbooks.run("deploy", "--tags", "preflight", "-e", "preflight_kernel_minimum=99.0")
    # THEN nothing is installed and the reason names the host and both kernels
    assert done.returncode != 0
    assert recap(done)["failed"] == 1
    assert "needs kernel 99.0 or newer" in re.sub(r"\s+", " ", done.stdout)


def test_a_host_that_denies_perf_events_is_refused_in_words(
    playbooks: Any, in_host: Callable[..., str]
) -> None:
    """The sysctl is one of the whole machine: a file in its place shows the host Debian's value."""
    sysctl = "/proc/sys/kernel/perf_event_paranoid"
    in_host("sh", "-c", f"echo 3 > /run/three && mount --bind /run/three {sysctl}")
    off = '{"flamefleet_set_perf_event_paranoid": false}'
    try:
        refused = playbooks.run("deploy", "--tags", "preflight", "-e", off)
        taken = playbooks.run("deploy", "--tags", "preflight")
    finally:
        in_host("umount", sysctl)
    assert refused.returncode != 0
    assert "has kernel.perf_event_paranoid 3" in re.sub(r"\s+", " ", refused.stdout)
    assert taken.returncode == 0, taken.stdout[-4000:]


def test_the_hosts_own_packages_do_not_run_in_the_agent(
    deployed: Any, in_host: Callable[..., str], trap: str
) -> None:
    assert in_host("cat", "/usr/lib/python3/dist-packages/trap.pth")
    assert in_host("find", "/var/lib/flamefleet", "-name", Path(trap).name) == ""
    for process in ("sampler", "shipper"):
        pid = in_host("systemctl", "show", "-P", "MainPID", f"flamefleet-{process}").strip()
        words = in_host("cat", f"/proc/{pid}/cmdline").split("\0")
        assert words[1:3] == ["-I", "-S"]


def test_samples_appear_under_the_hosts_name(deployed: Any, centre: Any, busy_unit: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    names: set[str] = set()
    while time.monotonic() < deadline and "deploy_spin" not in names:
        answer = centre.get(
            "/api/v1/flamegraph",
            query=f'{{host="node1", service="{busy_unit}", role="web"}}',
            **{"from": "now-10m", "until": "now"},
        )
        functions = answer["functions"]["name"]
        names = {answer["strings"][index] for index in functions}
        time.sleep(1)
    # the unit's own function, by name: the symbols travelled too
    assert {busy_unit, "deploy_spin"} <= names, names
    assert answer["coverage"]["host_names"] == ["node1"]


def test_perf_events_stay_allowed_after_a_reboot(
    deployed: Any, in_host: Callable[..., str]
) -> None:
    assert "perf_event_paranoid = 2" in in_host("cat", "/etc/sysctl.d/60-flamefleet.conf")


def test_another_hosts_name_has_no_samples(deployed: Any, centre: Any) -> None:
    answer = centre.get("/api/v1/flamegraph", query='{host="node2"}', **{"from": "now-10m"})
    assert answer["total_ns"] == 0


def test_a_second_run_changes_nothing(deployed: Any, playbooks: Any) -> None:
    done = playbooks.run("deploy")
    assert done.returncode == 0, done.stdout[-4000:]
    assert recap(done)["changed"] == 0, done.stdout
    assert recap(deployed)["changed"] > 0


def test_check_mode_reports_no_change_on_a_deployed_host(deployed: Any, playbooks: Any) -> None:
    done = playbooks.run("deploy", "--check")
    assert done.returncode == 0, done.stdout[-4000:]
    assert recap(done)["changed"] == 0, done.stdout


def test_exclusions_reach_the_agents_configuration(
    deployed: Any, in_host: Callable[..., str]
) -> None:
    # the agent started with this file, so it is valid; what it does is tested in test_no_gap.py
    text = in_host("cat", "/etc/flamefleet/agent.toml")
    assert re.search(r'\[agent.exclude\]\nunits = \["deploy-secret.service"\]', text)


def test_the_private_interpreter_alone_has_the_capabilities(
    deployed: Any, in_host: Callable[..., str]
) -> None:
    found = in_host("getcap", INTERPRETER).split()[-1]
    names, _, flags = found.partition("=")
    assert set(names.split(",")) == CAPABILITIES
    assert flags == "p"
    assert in_host("sh", "-c", "getcap $(readlink -f /usr/bin/python3)").strip() == ""
    assert in_host("stat", "-c", "%a %U %G", INTERPRETER).split() == [
        "750",
        "root",
        "flamefleet-sampler",
    ]


@pytest.mark.parametrize(
    ("unit", "user", "has_capabilities"),
    [
        ("flamefleet-sampler", "flamefleet-sampler", True),
        ("flamefleet-shipper", "flamefleet-shipper", False),
    ],
)
def test_each_unit_runs_as_its_own_user(
    deployed: Any, in_host: Callable[..., str], unit: str, user: str, has_capabilities: bool
) -> None:
    pid = in_host("systemctl", "show", "-P", "MainPID", unit).strip()
    assert in_host("stat", "-c", "%U", f"/proc/{pid}").strip() == user
    status = in_host("cat", f"/proc/{pid}/status")
    permitted = re.search(r"CapPrm:\s+(\w+)", status)
    assert permitted is not None, status
    assert (int(permitted[1], 16) != 0) is has_capabilities
    assert re.search(r"NoNewPrivs:\s+1", status)


def test_the_shipper_can_not_run_the_private_interpreter(
    deployed: Any, in_host: Callable[..., str]
) -> None:
    command = ["setpriv", "--reuid=flamefleet-shipper", "--regid=flamefleet-shipper"]
    command += ["--init-groups", "sh", "-c", f"{INTERPRETER} -V 2>&1 || echo refused"]
    assert "Permission denied" in in_host(*command)


def test_the_sampler_has_no_network_socket(deployed: Any, in_host: Callable[..., str]) -> None:
    pid = in_host("systemctl", "show", "-P", "MainPID", "flamefleet-sampler").strip()
    inodes = set(re.findall(r"socket:\[(\d+)\]", in_host("ls", "-l", f"/proc/{pid}/fd")))
    for table in ("tcp", "tcp6", "udp", "udp6", "raw", "packet"):
        rows = in_host("cat", f"/proc/{pid}/net/{table}").splitlines()[1:]
        assert not inodes & {word for row in rows for word in row.split()}


def test_restarts_lose_no_batch(
    deployed: Any, in_host: Callable[..., str], centre: Any, playbooks: Any
) -> None:
    in_host("systemctl", "kill", "-s", "KILL", "flamefleet-shipper")
    in_host("systemctl", "restart", "flamefleet-sampler")
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        states = in_host(
            "sh", "-c", "systemctl is-active flamefleet-shipper flamefleet-sampler || true"
        )
        if states.split() == ["active", "active"]:
            break
        time.sleep(1)
    assert states.split() == ["active", "active"]
    nodes = centre.get("/api/v1/nodes")["nodes"]
    assert [node["name"] for node in nodes] == ["node1"]
    assert nodes[0].get("lost_batches", 0) == 0


CHECK = f"{INTERPRETER} -I -S /opt/flamefleet/lib/agent.py check --production --json"


def production(in_host: Callable[..., str], rate_hz: int = 19) -> tuple[int, dict[str, str]]:
    """Exit code of `check --production`, and why each item is missing."""
    answer = in_host("sh", "-c", f'FLAMEFLEET_RATE_HZ={rate_hz} {CHECK}; echo "exit $?"')
    checks, _, code = answer.rpartition("exit ")
    entries = [entry for entry in json.loads(checks) if entry["name"].startswith("production: ")]
    return int(code), {
        entry["name"].removeprefix("production: "): entry["why"]
        for entry in entries
        if entry["state"] != "ok"
    }


def test_a_deployed_host_is_ready_for_production(
    deployed: Any, in_host: Callable[..., str]
) -> None:
    assert production(in_host) == (0, {})
    code, lacking = production(in_host, rate_hz=99)
    assert (code, list(lacking)) == (1, ["rate"])
    in_host("systemctl", "stop", "flamefleet-shipper")
    try:
        code, lacking = production(in_host)
    finally:
        in_host("systemctl", "start", "flamefleet-shipper")
    assert (code, list(lacking)) == (1, ["flamefleet-shipper"])


def unit_state(in_host: Callable[..., str], *names: str) -> list[str]:
    properties = [f"--property={name}" for name in names]
    shown = in_host("systemctl", "show", "flamefleet-sampler", *properties)
    values = dict(line.split("=", 1) for line in shown.splitlines())
    return [values[name] for name in names]


def test_the_breaker_keeps_the_unit_down(
    deployed: Any, in_host: Callable[..., str], centre: Any
) -> None:
    in_host("systemctl", "reset-failed", "flamefleet-sampler")  # its own limit counts restarts too
    # WHEN the sampler crashes three times
    for _ in range(3):
        deadline = time.monotonic() + PATIENCE_S
        while unit_state(in_host, "ActiveState") != ["active"] and time.monotonic() < deadline:
            time.sleep(0.5)
        in_host("systemctl", "kill", "-s", "KILL", "flamefleet-sampler")
    while unit_state(in_host, "ActiveState") != ["failed"] and time.monotonic() < deadline:
        time.sleep(0.5)
    # THEN it is down for good, and says why: here, in the log and at the centre
    before = unit_state(in_host, "ActiveState", "ExecMainStatus", "NRestarts")
    assert before[:2] == ["failed", "4"], in_host("journalctl", "-n", "30", "--no-pager")
    time.sleep(5)  # more than RestartSec
    assert unit_state(in_host, "ActiveState", "ExecMainStatus", "NRestarts") == before
    log = in_host("journalctl", "-u", "flamefleet-sampler", "-n", "200", "--no-pager")
    assert "stays detached: 3 crashes within 10 minutes" in log
    assert production(in_host)[1]["breaker"] == "open: 3 crashes within 10 minutes"
    facts: dict[str, str] = {}
    deadline = time.monotonic() + PATIENCE_S
    while "breaker" not in facts and time.monotonic() < deadline:
        facts = centre.get("/api/v1/nodes")["nodes"][0]["facts"]
        time.sleep(1)
    assert facts["breaker"] == "crashes: 3 crashes within 10 minutes"
    # the shipper's user can not do that to it
    state = "/var/lib/flamefleet-sampler/breaker.json"
    command = ["setpriv", "--reuid=flamefleet-shipper", "--regid=flamefleet-shipper"]
    command += ["--init-groups", "sh", "-c", f"rm -f {state} 2>&1 || echo refused"]
    assert "refused" in in_host(*command)
    # WHEN an operator does as it says
    in_host("rm", state)
    in_host("systemctl", "restart", "flamefleet-sampler")
    assert unit_state(in_host, "ActiveState") == ["active"]


def test_uninstall_leaves_nothing(
    deployed: Any, in_host: Callable[..., str], playbooks: Any, tmp_path: Path
) -> None:
    done = playbooks.run("uninstall")
    assert done.returncode == 0, done.stdout[-4000:]
    left = in_host(
        "sh",
        "-c",
        "ls -d /opt/flamefleet /var/lib/flamefleet /var/lib/flamefleet-sampler /etc/flamefleet"
        " /lib/systemd/system/flamefleet-* /etc/sysctl.d/60-flamefleet.conf 2>/dev/null;"
        " getent passwd flamefleet-sampler flamefleet-shipper; getent group flamefleet; true",
    )
    assert left.strip() == ""
    assert recap(playbooks.run("uninstall"))["changed"] == 0
