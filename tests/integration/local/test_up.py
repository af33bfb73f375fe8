"""`flamefleet up` from its first start to its third: data, refusals, kills, clean ends."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from node_agent.capabilities import NEEDED, mask_of

NOBODY, NOGROUP = 65534, 65534


def listening(port: int) -> set[str]:
    """Local addresses (as in /proc/net/tcp*) of the sockets that listen on `port`."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, hexadecimal = local.split(":")
            if state == "0A" and int(hexadecimal, 16) == port:
                found.add(address)
    return found


def samples(up: Any, since_s: float, until_s: float) -> int:
    return int(
        up.get("/api/v1/flamegraph", **{"from": since_s, "until": until_s})["coverage"]["samples"]
    )


def require_privileges(parts: dict[str, int]) -> None:
    """As root: everything but the sampler is nobody, without any capability or a way to one."""
    if os.geteuid() != 0:
        return
    needed = mask_of(NEEDED)
    for name, pid in with_descendants(parts):
        text = Path(f"/proc/{pid}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        held = {key: int(fields[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapAmb")}
        if name == "sampler":
            assert held["CapPrm"] == needed
            assert held["CapEff"] | needed == needed
            assert held["CapInh"] == held["CapAmb"] == 0
            for_children = mask_of(("CAP_SETUID", "CAP_SETGID"))
            assert int(fields["CapBnd"], 16) == needed | for_children
            assert fields["Groups"].split() == [str(NOGROUP)]
            continue
        assert set(held.values()) == {0}, (name, text)
        assert fields["NoNewPrivs"] == "1", (name, text)
        assert fields["Uid"].split() == [str(NOBODY)] * 4, (name, text)
        assert fields["Groups"].strip() == "", (name, text)
        assert int(fields["CapBnd"], 16) == 0, (name, text)


def with_descendants(parts: dict[str, int]) -> list[tuple[str, int]]:
    """Parts and the processes that they started, with the name of the part; those of the sampler
    come and go."""
    parents = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            parents[int(process.name)] = int(fields[1])
    found = list(parts.items())
    for name, pid in found:
        if name != "sampler":
            found += [(name, child) for child, parent in parents.items() if parent == pid]
    return found


def run_refused(command: list[str], data_dir: Path, port: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, "--data-dir", str(data_dir), "--port", str(port)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_up_runs_ends_and_finds_its_data_again(
    start_up: Callable[..., Any],
    up_command: list[str],
    tmp_path: Path,
    free_port: int,
    wait_until: Callable[..., None],
    is_alive: Callable[[int], bool],
) -> None:
    # GIVEN a first start
    began_s = time.time()
    first = start_up().wait_ready()
    assert first.ready["url"] == f"http://127.0.0.1:{free_port}/"
    assert list(first.ready["pids"]) == ["sampler", "shipper", "aggregator", "worker", "postgres"]
    running = first.processes()
    assert set(running) == {*first.ready["pids"], "valkey"}
    assert {name: running[name] for name in first.ready["pids"]} == first.ready["pids"]

    # THEN the page has data of this host, and nothing listens beyond the loopback
    answer = first.get("/api/v1/flamegraph", **{"from": f"{began_s:.0f}", "until": "now"})
    assert answer["coverage"]["host_names"] == [os.uname().nodename]
    assert answer["coverage"]["samples"] > 0
    assert answer["total_ns"] > 0
    assert listening(free_port) == {"0100007F"}

    # AND only the sampler has capabilities, which are those that it needs
    require_privileges(running)

    # AND neither its folder nor its port can be taken by another
    refused = run_refused(up_command, first.data_dir, free_port + 1)
    assert refused.returncode == 1
    assert f"process {first.process.pid}" in refused.stderr
    assert "--data-dir" in refused.stderr
    refused = run_refused(up_command, tmp_path / "other", free_port)
    assert refused.returncode == 1
    assert "--port" in refused.stderr
    assert "Traceback" not in refused.stderr

    # WHEN Ctrl-C ends it THEN it ends well and leaves no process behind
    assert first.finish(signal.SIGINT) == 0
    assert not any(is_alive(pid) for pid in running.values())
    assert listening(free_port) == set()
    # Ends of a question snap to 10 s: what comes later has to lie in another bucket.
    ended_s = (time.time() // 10 + 1) * 10
    wait_until(lambda: time.time() >= ended_s)
    left = list((first.data_dir / "spool/batches").glob("*.batch"))  # on a slow machine

    # WHEN it is started again and killed
    second = start_up().wait_ready()
    wait_until(lambda: not any(batch.exists() for batch in left), "what was left is delivered")
    kept = samples(second, began_s, ended_s)
    assert kept >= answer["coverage"]["samples"]
    running = second.processes()
    second.finish(signal.SIGKILL)

    # THEN its parts end by themselves
    wait_until(lambda: not any(is_alive(pid) for pid in running.values()))

    # AND a third start finds the data once more
    third = start_up().wait_ready()
    assert samples(third, began_s, ended_s) == kept
    running = third.processes()
    assert third.finish(signal.SIGTERM) == 0
    assert not any(is_alive(pid) for pid in running.values())
    said = third.said.read_text()
    assert "was killed" not in said, said


def test_it_ends_by_itself_when_its_time_is_over(
    start_up: Callable[..., Any], is_alive: Callable[[int], bool]
) -> None:
    up = start_up("--for", "1s").wait_ready()
    assert up.finish() == 0
    assert not any(is_alive(pid) for pid in up.ready["pids"].values())


def test_without_the_abilities_to_profile_it_refuses_and_says_why(
    up_command: list[str], tmp_path: Path, free_port: int
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to give up the capabilities of a profiler")
    without = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--", *up_command]
    refused = run_refused(without, tmp_path / "data", free_port)
    assert refused.returncode == 3, refused.stderr
    assert "cannot be profiled" in refused.stderr
    assert "CAP_" in refused.stderr
    assert refused.stdout == ""
