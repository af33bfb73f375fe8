import os
import subprocess
import sys
from pathlib import Path

import pytest

from node_agent.processes import identity
from node_agent.processes.cgroups import CgroupNames, parse_cgroup
from node_agent.processes.errors import ProcessGoneError
from node_agent.processes.identity import Identities, kernel_thread_name
from node_agent.processes.mappings import read_start_ticks


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("kworker/0:1-events", "kworker"),
        ("kworker/u4:1", "kworker"),
        ("ksoftirqd/0", "ksoftirqd"),
        ("rcu_preempt", "rcu_preempt"),
        ("", "kernel"),
    ],
)
def test_kernel_threads_are_named_by_kind(name: str, kind: str) -> None:
    assert kernel_thread_name(name) == kind


def _labels(identities: Identities, tgid: int, name: str = "comm") -> dict[str, str]:
    try:
        start_ns = read_start_ticks(tgid) * 10_000_000
    except ProcessGoneError:
        start_ns = 1
    return identities.labels((tgid, start_ns, 0), 1, name, False)


def test_own_labels() -> None:
    identities = Identities({"team": "web"})
    labels = _labels(identities, os.getpid())
    assert labels["executable"] == Path(sys.executable).resolve().name
    assert labels["team"] == "web"
    names = parse_cgroup(Path("/proc/self/cgroup").read_text())
    assert labels["service"] == (names.unit or names.container or labels["executable"])
    assert _labels(identities, os.getpid()) is labels


def test_kernel_threads_are_one_service() -> None:
    labels = Identities({}).labels((2, 0, 0), 1, "kworker/0:1", True)
    assert labels == {"service": "kernel", "executable": "kworker"}


def test_a_process_that_has_ended_is_called_by_its_thread() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    labels = _labels(Identities({}), process.pid, "make")
    assert labels == {"service": "make", "executable": "make"}


def test_a_process_that_has_ended_keeps_the_unit_of_its_cgroup() -> None:
    identities = Identities({})
    identities._by_cgroup.put(77, CgroupNames("nginx", ""))
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    labels = identities.labels((process.pid, 1, 0), 77, "worker", False)
    assert labels == {"service": "nginx", "executable": "worker"}


def test_the_number_of_values_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "MAX_VALUES", 2)
    identities = Identities({})
    names = [
        identities.labels((10**7 + n, 1, 0), 1, f"job{n}/x", True)["executable"] for n in range(4)
    ]
    assert names == ["job0", "job1", "other", "other"]
    assert identities.folded == 2


def test_a_deleted_program_keeps_its_name(sleeper) -> None:
    sleeper.path.unlink()
    labels = _labels(Identities({}), sleeper.process.pid)
    assert labels["executable"] == sleeper.path.name


def test_a_program_in_memory_has_no_random_name(await_program) -> None:
    program = os.memfd_create("sealed-91173221a7ea", 0)
    os.write(program, Path("/bin/sleep").read_bytes())
    child = subprocess.Popen([f"/proc/self/fd/{program}", "60"], pass_fds=[program])
    os.close(program)
    await_program(child)
    labels = _labels(Identities({}), child.pid)
    child.kill()
    child.wait()
    assert labels["executable"] == "memfd"


def test_an_ended_process_is_not_named_after_others_where_v1_tells_the_unit(tmp_path, monkeypatch):
    """GIVEN a host whose processes all are in the root of the v2 tree."""
    from node_agent.processes import identity

    for pid, text in (
        (7, "1:name=systemd:/system.slice/ssh.service\n0::/\n"),
        (8, "0::/a.service\n"),
    ):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cgroup").write_text(text)
    monkeypatch.setattr(
        identity,
        "read_process_file",
        lambda tgid, name: (tmp_path / str(tgid) / name).read_bytes(),
    )
    monkeypatch.setattr(
        identity, "check_start", lambda tgid, _: read_start_ticks(0) if tgid > 50 else None
    )
    identities = identity.Identities({})

    assert identities.labels((7, 1, 1), 1, "sshd", False)["service"] == "ssh"
    assert identities.labels((8, 1, 1), 50, "a", False)["service"] == "a"
    assert identities.labels((99, 1, 1), 1, "gone", False)["service"] == "gone"
    assert identities.labels((98, 1, 1), 50, "gone", False)["service"] == "a"


def test_another_process_with_the_same_id_lends_no_name() -> None:
    start_ns = (read_start_ticks(os.getpid()) + 500) * 10_000_000
    labels = Identities({}).labels((os.getpid(), start_ns, 0), 1, "gone", False)
    assert labels == {"service": "gone", "executable": "gone"}


def test_the_build_id_of_the_program_is_a_label_with_a_bound(monkeypatch) -> None:
    monkeypatch.setattr(identity, "MAX_VALUES", 1)
    found = {1: "ab", 2: "cd", 3: ""}
    identities = Identities({}, lambda process: found[process[2]])
    start_ns = read_start_ticks(os.getpid()) * 10_000_000
    ids = [
        identities.labels((os.getpid(), start_ns, n), 1, "x", False).get("build_id") for n in found
    ]
    assert ids == ["ab", "other", None]
    assert identities.folded == 1


def test_there_is_room_for_other_values_after_an_hour(monkeypatch) -> None:
    monkeypatch.setattr(identity, "MAX_VALUES", 1)
    monkeypatch.setattr(identity, "VALUES_FOR_S", -1.0)
    identities = Identities({})
    names = []
    for n in range(2):
        names.append(identities.labels((10**7 + n, 1, 0), 1, f"job{n}", True)["executable"])
        identities.rotate()
    assert names == ["job0", "job1"]


def test_labels_of_the_configuration_are_on_every_series() -> None:
    extra = {"environment": "prod", "role": "edge", "version": "1.2"}
    identities = Identities(extra)
    assert extra.items() <= _labels(identities, os.getpid()).items()
    assert extra.items() <= identities.labels((2, 0, 0), 1, "kworker/0:1", True).items()
