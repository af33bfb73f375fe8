"""The breaker with real samplers on the real kernel."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node_agent.breaker import Opened
from node_agent.config import load_config
from node_agent.kernel.log import newest, parse_messages, read_kernel_log
from node_agent.sampler.detached import breaker_facts, empty_batch
from wire.codec import decode
from wire.schema import Batch

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class Agent:
    """`flamefleet-agent` on a spool of its own."""

    def __init__(self, folder: Path) -> None:
        self.spool_dir = folder / "spool"
        self.state_dir = folder / "state"
        self.started: list[subprocess.Popen[str]] = []

    def command(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "node_agent", name, "--spool-dir", self.spool_dir, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "STATE_DIRECTORY": str(self.state_dir)},
        )
        self.started.append(process)
        return process

    def sample(self, *arguments: str) -> subprocess.Popen[str]:
        """A run that has come as far as sampling."""
        process = self.command("run", *arguments)
        assert process.stderr is not None
        line = "?"
        while line and "sampling at" not in line:
            line = process.stderr.readline()
        assert line, f"ended with {process.wait()}"
        return process

    def ask(self, name: str, *arguments: str) -> tuple[int, str, str]:
        process = self.command(name, *arguments)
        out, words = process.communicate(timeout=600)
        return process.returncode, out, words


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path)
    yield agent
    for process in agent.started:
        process.kill()
        process.communicate()


def crash(agent: Agent) -> None:
    process = agent.sample()
    process.kill()
    process.wait()


def test_three_killed_samplers_keep_the_fourth_detached(agent: Agent) -> None:
    for _ in range(3):
        crash(agent)

    code, _, words = agent.ask("run", "--name", "node-1")
    assert code == 4
    assert "stays detached: 3 crashes within 10 minutes" in words
    assert "--reset-breaker" in words
    assert "sampling at" not in words

    code, out, _ = agent.ask("status", "--json")
    status = json.loads(out)
    assert (code, status["running"], status["breaker"]["reason"]) == (1, False, "crashes")
    _, out, _ = agent.ask("status")
    assert "detached by its breaker: 3 crashes within 10 minutes" in out

    batches = sorted((agent.spool_dir / "batches").glob("*.batch"))
    reports = [
        batch for file in batches if "breaker" in (batch := decode(file.read_bytes(), Batch)).facts
    ]
    assert [(r.node, r.counts, r.facts["breaker"]) for r in reports] == [
        ("node-1", b"", "crashes: 3 crashes within 10 minutes")
    ]

    # it stays so, and is not counted as one more crash
    assert agent.ask("run")[0] == 4
    state = json.loads((agent.state_dir / "breaker.json").read_text())
    assert len(state["crashes"]) == 3

    process = agent.sample("--reset-breaker")
    process.send_signal(signal.SIGTERM)
    assert process.wait(300) == 0
    process = agent.sample()
    process.send_signal(signal.SIGTERM)
    assert process.wait(300) == 0
    _, out, _ = agent.ask("status", "--json")
    assert json.loads(out)["breaker"] is None


def test_ten_minutes_later_it_samples_again(agent: Agent) -> None:
    for _ in range(3):
        crash(agent)
    assert agent.ask("run")[0] == 4
    file = agent.state_dir / "breaker.json"
    state = json.loads(file.read_text())
    state["opened"]["at"] -= 600
    file.write_text(json.dumps(state))

    process = agent.sample()
    process.terminate()
    assert process.wait(300) == 0


def test_ordinary_ends_and_a_second_run_are_no_crashes(agent: Agent) -> None:
    for _ in range(4):
        process = agent.sample()
        process.terminate()
        assert process.wait(300) == 0
    living = agent.sample()
    for _ in range(4):
        other = agent.sample()
        other.terminate()
        assert other.wait(300) == 0
    living.terminate()
    assert living.wait(300) == 0
    assert json.loads((agent.state_dir / "breaker.json").read_text())["crashes"] == []


def test_a_refusal_is_no_crash(agent: Agent) -> None:
    for _ in range(4):
        code, _, words = agent.ask("run", "--mode", "bcc")
        assert code == 3, words
    assert json.loads((agent.state_dir / "breaker.json").read_text())["crashes"] == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff" * 100_000, b'{"version": 9}'])
def test_a_damaged_state_is_said_and_starts_anew(agent: Agent, content: bytes) -> None:
    agent.state_dir.mkdir()
    (agent.state_dir / "breaker.json").write_bytes(content)
    process = agent.command("run")
    assert process.stderr is not None
    lines = [process.stderr.readline(), process.stderr.readline()]
    process.terminate()
    assert process.wait(300) == 0
    assert "the breaker starts anew" in lines[0]
    assert "sampling at" in lines[1]


def test_the_state_is_the_samplers_alone(agent: Agent, tmp_path: Path) -> None:
    process = agent.sample()
    assert agent.state_dir.stat().st_mode & 0o777 == 0o700
    assert (agent.state_dir / "breaker.json").stat().st_mode & 0o777 == 0o600
    process.kill()
    process.wait()
    secret = tmp_path / "secret"
    secret.write_text("{}")
    (agent.state_dir / "breaker.json").unlink()
    (agent.state_dir / "breaker.json").symlink_to(secret)
    process = agent.sample()
    process.terminate()
    process.wait(300)
    assert secret.read_text() == "{}"
    assert not (agent.state_dir / "breaker.json").is_symlink()


def test_the_kernels_log_is_really_read() -> None:
    """GIVEN what a program writes into the log THEN it is read, and not taken for the kernel's."""
    mark = f"flamefleet test {time.time_ns()}: WARNING: kernel/bpf/core.c"
    before = newest(parse_messages(read_kernel_log()))
    Path("/dev/kmsg").write_text(f"<4>{mark}\n")

    assert mark.encode() in read_kernel_log()
    messages = parse_messages(read_kernel_log())
    assert messages
    assert newest(messages) >= before > 0
    assert all(mark not in message.text for message in messages)


async def test_the_centre_takes_the_report_of_a_detached_node(node, rows, tmp_path):
    config = load_config(None, {}, {"name": node.name, "spool_dir": tmp_path})
    opened = Opened("kernel_log", "BUG: y", time.time(), "boot")

    answer = await node.send(empty_batch(config, breaker_facts(opened)))

    assert answer.status == "stored"
    [(facts,)] = rows("SELECT facts FROM nodes")
    assert facts["breaker"] == "kernel_log: BUG: y"
    assert rows("SELECT samples, covered_ms FROM node_prof") in ([], [(0, 0)])


def test_a_running_sampler_detaches_when_the_kernel_complains(agent: Agent, tmp_path: Path) -> None:
    """The one stand-in is the log's text: a kernel that warns cannot be had here."""
    log = tmp_path / "log"
    log.write_text("<6>[    1.000000] quiet\n")
    code = (
        "import pathlib, sys\n"
        "from node_agent import cli\n"
        "from node_agent.sampler import watch\n"
        f"watch.read_kernel_log = pathlib.Path({str(log)!r}).read_bytes\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    command = ["run", "--spool-dir", str(agent.spool_dir), "--interval", "1"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "STATE_DIRECTORY": str(agent.state_dir)},
    )
    agent.started.append(process)
    assert process.stderr is not None
    while "sampling at" not in process.stderr.readline():
        assert process.poll() is None
    warning = "WARNING: CPU: 0 PID: 1 at kernel/bpf/core.c:1 f+0x1/0x2"
    log.write_text(f"<6>[    1.000000] quiet\n<4>[   60.000000] {warning}\n")

    assert process.wait(300) == 4
    assert f"stays detached: {warning}" in process.stderr.read()
    batches = [
        decode(file.read_bytes(), Batch)
        for file in sorted((agent.spool_dir / "batches").glob("*.batch"))
    ]
    told = [batch for batch in batches if batch.facts.get("breaker") == f"kernel_log: {warning}"]
    assert len(told) == 2  # its last one, and the report of being detached
    _, out, _ = agent.ask("status", "--json")
    assert json.loads(out)["breaker"]["reason"] == "kernel_log"
    code_again, _, words = agent.ask("run")
    assert code_again == 4
    assert warning in words
