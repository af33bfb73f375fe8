"""`flamefleet profile` against a real aggregator and a real agent on this kernel."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aggregator.access.operators import create_operator_token
from aggregator.db import session_scope

pytestmark = pytest.mark.timeout(1800)
LOAD = """
def spin_on_demand():
    while True:
        sum(range(1000))
spin_on_demand()
"""
RATE_HZ = 97  # no preset has it
CONFIG = """
[agent]
name = "web-1"
preset = "production"
interval_s = 2
on_demand_max_rate_hz = 97
spool_dir = "{folder}/spool"
[ship]
url = "{url}"
token_file = "{folder}/token"
proxy = "direct"
"""
PATIENCE_S = 600.0
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """start(*arguments): a Python process, ended with the test; what it says goes to said.txt."""
    started = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        environ = os.environ | {"FLAMEFLEET_OPERATOR_TOKEN": ""}
        with (tmp_path / "said.txt").open("a") as said:
            process = subprocess.Popen(
                [sys.executable, *arguments], stderr=said, env=environ, text=True
            )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.terminate()
    for process in started:
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def agent(client: Any, enrol: Callable[[str], str], tmp_path: Path, start: Start) -> Start:
    """agent("run") or agent("ship"): a process of this host's agent, called web-1."""
    token = tmp_path / "token"
    token.write_text(enrol("web-1"))
    token.chmod(0o600)
    config = tmp_path / "agent.toml"
    url = f"http://127.0.0.1:{client.port}"
    config.write_text(CONFIG.format(folder=tmp_path, url=url))
    return lambda command: start("-m", "node_agent", command, "--config", str(config))


@pytest.fixture
def profile(client: Any, database: Any, tmp_path: Path) -> Callable[..., Awaitable[Any]]:
    """profile(*flags): `flamefleet profile web-1 --json` run beside the aggregator."""
    with session_scope(database) as session:
        token = create_operator_token(session, "ann")
    (tmp_path / "operator").write_text(token)

    async def run(*flags: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "aggregator.cli", "profile", "web-1", "--json"),
            *("--url", f"http://127.0.0.1:{client.port}"),
            *("--token-file", str(tmp_path / "operator"), *flags),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    return run


@pytest.fixture
def until(client: Any, tmp_path: Path) -> Callable[..., Awaitable[Any]]:
    """until(path, holds): the JSON answer to a GET for which `holds`."""

    async def wait(path: str, holds: Callable[[Any], bool]) -> Any:
        limit = time.monotonic() + PATIENCE_S
        while True:
            async with client.get(path) as response:
                answer = await response.json()
            if holds(answer):
                return answer
            said = (tmp_path / "said.txt").read_text()
            assert time.monotonic() < limit, f"waited in vain: {answer}\n{said}"
            await asyncio.sleep(0.2)

    return wait


def rate_of(answer: dict[str, Any]) -> float | None:
    rate_hz: float | None = answer["nodes"][0]["rate_hz"]
    return rate_hz


async def test_a_node_samples_faster_for_some_seconds_and_shows_what_it_saw(
    agent: Start,
    start: Start,
    profile: Callable[..., Awaitable[Any]],
    until: Callable[..., Awaitable[Any]],
    client: Any,
    tmp_path: Path,
) -> None:
    start("-c", LOAD)
    agent("run")
    agent("ship")
    await until("/api/v1/nodes", lambda answer: rate_of(answer) == 19)
    # The agent has learnt to read the program: what it takes for that is its own test.
    everything = "/api/v1/flamegraph?from=now-5m"
    await until(everything, lambda answer: "spin_on_demand" in answer["strings"])

    refused = await profile("--seconds", "10", "--rate", "199")
    _, words = await refused.communicate()
    assert refused.returncode == 3, words
    assert b"199 Hz is above the 97 Hz that web-1 allows" in words

    output = tmp_path / "out.folded"
    asked = await profile("--seconds", "10", "--rate", str(RATE_HZ), "-o", str(output))
    out, words = await asked.communicate()
    assert asked.returncode == 0, words
    done = json.loads(out)
    assert (done["state"], done["asked_rate_hz"], done["seconds"]) == ("done", RATE_HZ, 10)
    assert b"running" in words
    # The samples of its span are all at its rate, and they are those that the profile counted.
    async with client.get(done["flamegraph"]["url"]) as response:
        answer = await response.json()
    samples = answer["coverage"]["samples"]
    assert samples == done["samples"] > 0
    assert samples * 1e9 / answer["total_ns"] == pytest.approx(RATE_HZ, rel=0.001)
    assert done["top"][0]["self_ns"] > 0
    assert "spin_on_demand" in output.read_text()
    await until("/api/v1/nodes", lambda answer: rate_of(answer) == 19)


@pytest.mark.long
async def test_restarts_of_the_sampler_and_ctrl_c(
    agent: Start,
    start: Start,
    profile: Callable[..., Awaitable[Any]],
    until: Callable[..., Awaitable[Any]],
    tmp_path: Path,
) -> None:
    start("-c", LOAD)
    sampler = agent("run")
    agent("ship")
    await until("/api/v1/nodes", lambda answer: rate_of(answer) == 19)
    newest = "/api/v1/nodes/web-1/profiles"

    for number in (signal.SIGKILL, signal.SIGTERM):
        asked = await profile("--seconds", "600", "--rate", str(RATE_HZ))
        await until(newest, is_sampled)
        sampler.send_signal(number)
        sampler.wait()
        sampler = agent("run")
        out, words = await asked.communicate()
        assert asked.returncode == 5, words
        known = json.loads(out)
        assert known["state"] == "shortened"
        said = "started again" if number == signal.SIGKILL else "the sampler was stopped after"
        assert said in known["reason"]
        assert known["samples"] > 0
        await until("/api/v1/nodes", lambda answer: rate_of(answer) == 19)

    asked = await profile("--seconds", "600", "--rate", str(RATE_HZ))
    await until(newest, is_sampled)
    asked.send_signal(signal.SIGINT)
    out, words = await asked.communicate()
    assert asked.returncode == 130, words
    known = json.loads(out)
    assert (known["state"], known["cancelled_by"]) == ("shortened", "ann")
    assert known["reason"].startswith("cancelled after ")
    await until("/api/v1/nodes", lambda answer: rate_of(answer) == 19)


def is_sampled(answer: dict[str, Any]) -> bool:
    """Whether the newest profile runs and has samples."""
    newest = answer["profiles"][0] if answer["profiles"] else {"state": "", "samples": 0}
    return newest["state"] == "running" and newest["samples"] > 0
