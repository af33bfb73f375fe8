"""The packaged sampler under real systemd: no gap over restart and crash, nothing left after."""

import io
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from node_agent.collectors.running import CORE_MAPS, MAPS
from wire.codec import decode
from wire.schema import Batch

HOSTS = Path(__file__).with_name("hosts.sh")
UNIT = "flamefleet-sampler"
PINNED = 1 + len(MAPS + CORE_MAPS)  # the program and its maps
STORED = PINNED + (os.cpu_count() or 1)  # and an event a CPU
DETACH = "/usr/bin/python3 -I -S /opt/flamefleet/lib/agent.py detach --json"
CONFIG = """
[agent]
name = "node1"
preset = "debug"
interval_s = 1
[agent.exclude]
units = ["secret"]
"""
InHost = Callable[..., str]


class Agent:
    """The sampler of the host, without a shipper: its batches stay in the spool."""

    def __init__(self, in_host: InHost, environment: dict[str, str], name: str) -> None:
        self.run = in_host
        self._environment = environment
        self._name = name

    def put(self, path: str, content: bytes) -> None:
        command = [str(HOSTS), "in", self._name, "sh", "-c", f"cat >{path}"]
        subprocess.run(command, env=self._environment, input=content, check=True)

    def shown(self, name: str) -> str:
        return self.run("systemctl", "show", UNIT, "-p", name, "--value").strip()

    def batches(self) -> list[Batch]:
        """In the order in which they were taken."""
        command = [str(HOSTS), "in", self._name, "tar", "-C", "/var/lib/flamefleet/spool/batches"]
        packed = subprocess.run(
            [*command, "-cf", "-", "."], env=self._environment, capture_output=True, check=False
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            files = [archive.extractfile(m) for m in archive if m.name.endswith(".batch")]
            found = [decode(file.read(), Batch) for file in files if file is not None]
        return sorted(found, key=lambda batch: batch.start_ns)

    def wait_for_runs(self, number: int) -> list[Batch]:
        """Until the newest of so many runs has two batches."""
        end = time.monotonic() + 300
        while time.monotonic() < end:
            batches = self.batches()
            runs = {batch.run for batch in batches}
            if len(runs) == number and max(b.sequence for b in batches[-2:]) >= 2:
                return batches
            time.sleep(1)
        pytest.fail(self.run("journalctl", "-u", UNIT, "--no-pager", "-o", "cat"))


@pytest.fixture(scope="module")
def host_environment() -> dict[str, str]:
    """As in conftest.py, which hosts.sh is called with there."""
    return {**os.environ, "FLEET_PREFIX": "fftest", "FLEET_NET": "10.213.9"}


@pytest.fixture(scope="module")
def agent(
    host: str,
    in_host: InHost,
    agent_package: Path,
    busy_unit: str,
    host_environment: dict[str, str],
) -> Agent:
    agent = Agent(in_host, host_environment, host)
    agent.put("/tmp/agent.deb", agent_package.read_bytes())
    in_host("dpkg", "-i", "--force-depends", "/tmp/agent.deb")
    in_host("mkdir", "-p", "/etc/flamefleet")
    agent.put("/etc/flamefleet/agent.toml", CONFIG.encode())
    in_host(
        *("systemd-run", "--unit=secret", "--property=CPUQuota=25%"),
        "/usr/local/bin/deploy-busy",
    )
    in_host("systemctl", "start", UNIT)
    return agent


@pytest.fixture(scope="module")
def batches(agent: Agent) -> list[Batch]:
    """Of three runs: a restart lies between the first two, a crash between the last."""
    agent.wait_for_runs(1)
    agent.run("systemctl", "restart", UNIT)
    agent.wait_for_runs(2)
    agent.run("systemctl", "kill", "--signal=KILL", "--kill-who=main", UNIT)
    return agent.wait_for_runs(3)


def test_intervals_follow_each_other_over_restart_and_crash(
    agent: Agent, batches: list[Batch]
) -> None:
    gaps_s = [
        (later.start_ns - earlier.start_ns - earlier.duration_ns) / 1e9
        for earlier, later in pairwise(batches)
    ]

    assert len({batch.run for batch in batches}) == 3
    assert max(gaps_s) < 0.1  # starting the sampler alone takes longer
    assert min(gaps_s) > -0.1
    assert agent.shown("NFileDescriptorStore") == str(STORED)


def test_an_excluded_unit_is_never_seen(batches: list[Batch], busy_unit: str) -> None:
    services = {series.labels["service"] for batch in batches for series in batch.series}

    assert busy_unit in services
    assert "secret" not in services


def test_detach_stops_the_unit_and_leaves_nothing(agent: Agent, batches: list[Batch]) -> None:
    def answer(*arguments: str) -> dict[str, Any]:
        return json.loads(agent.run("sh", "-c", f"{DETACH} {' '.join(arguments)}; true"))

    # the machine's other agents share this kernel: judge what this host's systemd holds
    def held(found: dict[str, Any]) -> set[tuple[str, int]]:
        left = (r for r in found["left"] if r["kind"] != "events")
        return {(r["kind"], r["id"]) for r in left if 1 in r["holders"]}

    before = held(answer("--list"))
    after = answer()

    assert len(before) == PINNED
    assert after["stopped"] == [f"{UNIT}.service"]
    assert not before & {(r["kind"], r["id"]) for r in after["left"]}
    assert agent.shown("NFileDescriptorStore") == "0"
    assert agent.shown("ActiveState") == "inactive"
