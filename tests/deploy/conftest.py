"""One real host with systemd and ssh, an aggregator that it can reach, and the agent's package."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest

from aggregator.local.postgres import Postgres
from aggregator.local.valkey import Valkey

ROOT = Path(__file__).resolve().parents[2]
HOSTS = Path(__file__).with_name("hosts.sh")
BIN = Path(sys.executable).parent
CONTROLLER = "10.213.9.1"
PORT = 8380
ENVIRONMENT = {
    **os.environ,
    "FLEET_PREFIX": "fftest",
    "FLEET_NET": "10.213.9",
    "PATH": f"{BIN}:{os.environ['PATH']}",
}

BUSY_SOURCE = r"""
#include <stdint.h>
volatile uint64_t sink;
__attribute__((noinline)) static void deploy_spin(uint64_t n) { while (n--) sink += n; }
int main(void) { for (;;) deploy_spin(10000000); }
"""


def hosts(*arguments: str, timeout_s: float = 900, check: bool = True) -> str:
    """Run hosts.sh and return its standard output."""
    result = subprocess.run(
        [str(HOSTS), *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if check and result.returncode:
        pytest.fail(
            f"hosts.sh {arguments} gave {result.returncode}:\n{result.stdout}{result.stderr}"
        )
    return result.stdout


@dataclass(frozen=True)
class Centre:
    """An aggregator inside the controller's network namespace."""

    url: str
    environment: dict[str, str]

    def get(self, path: str, **parameters: str) -> dict:
        """JSON answer of a GET from within the controller's network."""
        url = f"{self.url}{path}?{urlencode(parameters)}"
        return json.loads(hosts("exec", "curl", "-sS", "--max-time", "20", url))


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    """A booted host named node1, with a busy unit; stopped and removed afterwards."""
    hosts("down")
    hosts("up", "1")
    try:
        yield "node1"
    finally:
        hosts("down")


@pytest.fixture(scope="module")
def in_host(host: str) -> Callable[..., str]:
    """Run a command as root inside the host; returns its standard output."""

    def run(*command: str, check: bool = True) -> str:
        return hosts("in", host, *command, check=check)

    return run


@pytest.fixture(scope="module")
def busy_unit(host: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A systemd unit `deploy-busy` on the host that burns CPU in `deploy_spin`."""
    folder = tmp_path_factory.mktemp("busy")
    (folder / "busy.c").write_text(BUSY_SOURCE)
    command = ["gcc", "-O0", "-fno-omit-frame-pointer", "-o", "deploy-busy", "busy.c"]
    subprocess.run(command, cwd=folder, check=True)
    binary = (folder / "deploy-busy").read_bytes()
    subprocess.run(
        [str(HOSTS), "in", host, "sh", "-c", "cat >/usr/local/bin/deploy-busy"],
        env=ENVIRONMENT,
        input=binary,
        check=True,
    )
    hosts("in", host, "chmod", "755", "/usr/local/bin/deploy-busy")
    # a quarter of one core is plenty to be seen, and leaves room for the other tests
    run = [
        "systemd-run",
        "--unit=deploy-busy",
        "--property=CPUQuota=25%",
        "/usr/local/bin/deploy-busy",
    ]
    hosts("in", host, *run)
    return "deploy-busy"


@pytest.fixture(scope="module")
def agent_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent's Debian package, built from this tree."""
    command = [sys.executable, str(ROOT / "packaging/deb/build.py"), "--output", "build/deb"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return Path(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def centre(
    host: str,
    postgres_server: Postgres,
    postgres_template: str,
    valkey_server: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Centre]:
    """Aggregator and Celery worker on the controller's address, over a migrated database."""
    postgres_server.create_database("deploy", postgres_template)
    environment = {
        **ENVIRONMENT,
        "FLAMEFLEET_DATABASE_URL": postgres_server.url("deploy"),
        "FLAMEFLEET_BROKER_URL": valkey_server.url(),
        "FLAMEFLEET_WEBHOOK_URL": "http://192.0.2.1:9/alerts",  # nobody: it is there, not reached
    }
    schedule = tmp_path_factory.mktemp("schedule") / "beat"
    logs = tmp_path_factory.mktemp("logs")
    flamefleet = str(BIN / "flamefleet")
    serve = [flamefleet, "serve", "--host", CONTROLLER, "--port", str(PORT)]
    with (logs / "serve.log").open("wb") as serve_log, (logs / "worker.log").open("wb") as work_log:
        processes = [
            subprocess.Popen(
                [str(HOSTS), "exec", *serve],
                env=environment,
                stdout=serve_log,
                stderr=subprocess.STDOUT,
            ),
            subprocess.Popen(
                [flamefleet, "worker", "--beat", "--pool", "solo", "--schedule", str(schedule)],
                env=environment,
                stdout=work_log,
                stderr=subprocess.STDOUT,
            ),
        ]
        try:
            centre = Centre(f"http://{CONTROLLER}:{PORT}", environment)
            wait_until_alive(centre, processes[0], logs / "serve.log")
            yield centre
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(300)
            postgres_server.drop_database("deploy")


def wait_until_alive(centre: Centre, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for /healthz, at most five minutes."""
    probe = ["exec", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"{centre.url}/healthz"]
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if hosts(*probe, check=False).strip() == "200":
            return
        time.sleep(0.5)
    pytest.fail(f"the aggregator did not come up:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def token(centre: Centre, host: str) -> str:
    """The host's enrolment token, made by the command that an operator uses."""
    done = subprocess.run(
        [str(BIN / "flamefleet"), "token", "create", host, "--json"],
        env=centre.environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return str(json.loads(done.stdout)["token"])


@dataclass(frozen=True)
class Playbooks:
    """Runs this project's playbooks against the test host, over ssh."""

    inventory: Path

    def run(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `ansible/playbooks/NAME.yml` and return the finished process."""
        playbook = ROOT / "ansible/playbooks" / f"{name}.yml"
        command = [str(HOSTS), "exec", str(BIN / "ansible-playbook"), "-i", str(self.inventory)]
        return subprocess.run(
            [*command, str(playbook), *arguments],
            env={**ENVIRONMENT, "ANSIBLE_CONFIG": str(ROOT / "ansible/ansible.cfg")},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )


@pytest.fixture(scope="module")
def playbooks(
    host: str,
    centre: Centre,
    token: str,
    agent_package: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Playbooks:
    """The playbooks with an inventory of one host, by its ssh address."""
    state = Path(f"/run/fleet-hosts-{ENVIRONMENT['FLEET_PREFIX']}")
    inventory = tmp_path_factory.mktemp("inventory") / "hosts.yml"
    ssh = f"-o UserKnownHostsFile={state}/known_hosts -o StrictHostKeyChecking=yes"
    variables = {
        "ansible_user": "deploy",
        "ansible_ssh_private_key_file": str(state / "id_ed25519"),
        "ansible_ssh_common_args": ssh,
        "flamefleet_url": centre.url,
        "flamefleet_agent_deb": str(agent_package),
        "flamefleet_preset": "development",
        "flamefleet_interval_s": 2,
        "flamefleet_labels": {"environment": "test", "role": "web"},
        "flamefleet_exclude": {"units": ["deploy-secret.service"]},
        "flamefleet_set_perf_event_paranoid": True,
        "flamefleet_token": token,
    }
    address = ENVIRONMENT["FLEET_NET"] + ".11"
    group = {"hosts": {host: {"ansible_host": address}}, "vars": variables}
    inventory.write_text(json.dumps({"flamefleet_nodes": group}))
    return Playbooks(inventory)
