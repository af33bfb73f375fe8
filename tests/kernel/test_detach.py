"""`flamefleet-agent detach`: what is ours in this kernel, who holds it, and that it goes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from node_agent.collectors.cpu import CpuCollector
from node_agent.collectors.running import CORE_MAPS, MAPS
from node_agent.commands.detach import render
from node_agent.kernel.remains import Remnant, Survey
from node_agent.spool import Spool

PROJECT = Path(__file__).parents[2]
AGENT = (sys.executable, "-m", "node_agent")


def detach(*arguments: str, as_nobody: bool = False) -> tuple[int, dict[str, Any]]:
    """Exit code and answer. Other agents may be at work on this machine: judge by process."""
    user = {"user": 65534, "group": 65534, "extra_groups": []} if as_nobody else {}
    done = subprocess.run(
        [*AGENT, "detach", "--json", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT,
        **user,
    )
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def held_by(pid: int, answer: dict[str, Any]) -> dict[str, int]:
    """Kinds of what a process holds: how many, of events as the answer says."""
    kinds: dict[str, int] = {}
    for remnant in answer["left"]:
        if pid in remnant["holders"]:
            number = remnant["id"] if remnant["kind"] == "events" else 1
            kinds[remnant["kind"]] = kinds.get(remnant["kind"], 0) + number
    return kinds


def test_what_a_running_collector_holds_is_listed_and_then_gone() -> None:
    collector = CpuCollector(19, 1000, 10)
    collector.start()
    code, answer = detach("--list")
    collector.stop()

    assert code == 1
    assert answer["stopped"] == []
    found = held_by(os.getpid(), answer)
    assert found == {"program": 1, "map": len(MAPS + CORE_MAPS), "events": os.cpu_count()}
    assert held_by(os.getpid(), detach("--list")[1]) == {}


def test_the_sampler_of_the_spool_is_stopped(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    sampler = subprocess.Popen(
        [*AGENT, "run", "--spool-dir", spool.root, "--preset", "debug"], cwd=PROJECT
    )
    try:
        end = time.monotonic() + 300
        while (spool.root / "status/sampler.json").exists() is False and time.monotonic() < end:
            time.sleep(0.1)
        _, before = detach("--list", "--spool-dir", str(spool.root))
        _, answer = detach("--spool-dir", str(spool.root))
        code = sampler.wait(timeout=300)
    finally:
        sampler.kill()
        sampler.wait()

    assert held_by(sampler.pid, before)["program"] == 1
    assert answer["stopped"] == [f"the sampler, process {sampler.pid}"]
    assert held_by(sampler.pid, answer) == {}
    gone = {(r["kind"], r["id"]) for r in before["left"] if sampler.pid in r["holders"]}
    assert not gone & {(r["kind"], r["id"]) for r in answer["left"] if r["kind"] != "events"}
    assert code == 0


def test_without_the_right_to_look_nothing_is_proved() -> None:
    code, answer = detach("--list", as_nobody=True)

    assert code == 1
    assert "CAP_SYS_ADMIN" in answer["unseen"][0]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Survey([], []), "nothing of Flamefleet is in the kernel"),
        (Survey([], ["the kernel's maps: no"]), "not looked at: the kernel's maps: no"),
        (Survey([Remnant("map", "ff_stacks", 7, (1,))], []), "map ff_stacks, id 7, held by"),
        (Survey([Remnant("map", "ff_stacks", 7, (1,))], []), "systemctl stop flamefleet-sampler"),
        (Survey([Remnant("program", "ff_x", 7, ())], []), "no process that can be seen"),
        (Survey([Remnant("events", "cpu-clock", 4, (99999999,))], []), "kill 99999999"),
    ],
)
def test_people_are_told_what_and_who(found: Survey, words: str) -> None:
    text = render(found, ["the sampler, process 5"])

    assert words in text
    assert text.startswith("stopped the sampler, process 5")
