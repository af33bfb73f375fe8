"""What a newcomer meets: commands find the running `flamefleet up`, refusals say who and what."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROGRAM = str(Path(sys.executable).with_name("flamefleet"))


def flamefleet(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if "FLAMEFLEET" not in name}
    return subprocess.run(
        [PROGRAM, *arguments],
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_commands_find_the_centre_that_runs_here(
    start_up: Callable[..., Any], find_port: Callable[[], int], tmp_path: Path
) -> None:
    # GIVEN one `flamefleet up`, whose data folder and port are none of the defaults
    entries = {"FLAMEFLEET_RUN_DIR": str(tmp_path / "run")}
    none = flamefleet("token", "create", "web-1", **entries)
    assert none.returncode == 2
    assert "--config" in none.stderr
    assert "bin/flamefleet up`" in none.stderr
    first = start_up(**entries).wait_ready()

    # THEN a token, the schema's version and the symbols need no flag
    made = flamefleet("token", "create", "--operator", "me", "--json", **entries)
    assert made.returncode == 0, made.stderr
    assert str(first.data_dir / "centre.toml") in made.stderr
    token = json.loads(made.stdout)["token"]
    assert flamefleet("db", "current", **entries).returncode == 0
    assert flamefleet("symbols", "list", "--json", **entries).returncode == 0

    # AND a profile is asked for at its address
    operator = {"FLAMEFLEET_OPERATOR_TOKEN": token}
    asked = flamefleet("profile", "no-such-node", **entries, **operator)
    assert asked.returncode == 1
    assert "no-such-node" in asked.stderr

    # AND its words on standard error can be pasted into another terminal
    said = first.said.read_text()
    for line in said.splitlines():
        if f"{PROGRAM} profile" in line or f"{PROGRAM}-agent status" in line:
            command = line[line.index(PROGRAM) :]
            helped = subprocess.run(f"{command} --help", shell=True, check=True, text=True)
            assert helped.returncode == 0
            break
    else:
        pytest.fail(said)

    # WHEN two run THEN the command does not choose, it names both
    second = start_up(data_dir=tmp_path / "other", port=find_port(), **entries).wait_ready()
    many = flamefleet("token", "create", "web-1", **entries)
    assert many.returncode == 2
    for up in (first, second):
        assert f"--config {up.data_dir}/centre.toml" in many.stderr
    unsure = flamefleet("profile", "web-1", **entries, **operator)
    assert f"--url {second.ready['url'].rstrip('/')}" in unsure.stderr

    # AND what ended is forgotten
    for up in (first, second):
        assert up.finish(2) == 0
    assert list((tmp_path / "run").iterdir()) == []


def test_a_taken_port_is_told_before_anything_is_started(
    up_command: list[str], tmp_path: Path, free_port: int
) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", free_port))
        holder.listen()
        refused = subprocess.run(
            [*up_command, "--data-dir", str(tmp_path / "data"), "--port", str(free_port)],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    assert refused.returncode == 1
    assert f"port {free_port} of 127.0.0.1 cannot be used" in refused.stderr
    assert f"(process {os.getpid()}) listens there" in refused.stderr
    assert "--port" in refused.stderr
    assert f"!! port {free_port}" in refused.stderr
    for step in ("Postgres", "checking what this host allows", "!! clearing up"):
        assert step not in refused.stderr
    assert not (tmp_path / "data/servers/postgres").exists()


def test_an_address_where_nobody_answers_names_the_flag(find_port: Callable[[], int]) -> None:
    failed = flamefleet(
        *("profile", "web-1", "--url", f"http://127.0.0.1:{find_port()}", "--token", "x")
    )
    assert failed.returncode == 1
    assert "--url" in failed.stderr
