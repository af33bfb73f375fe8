import os
import subprocess
import sys
from pathlib import Path

import pytest

from node_agent.processes import identity
from node_agent.processes.identity import (
    CgroupNames,
    Identities,
    kernel_thread_name,
    parse_cgroup,
)

ID = "4e1f0c9a7d" + "0" * 54
CGROUPS = [
    ("0::/", "", ""),
    ("", "", ""),
    ("nonsense", "", ""),
    ("0::/system.slice/nginx.service", "nginx", ""),
    ("0::/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1", ""),
    (r"0::/system.slice/dev-disk\x2dby.service", "dev-disk-by", ""),
    ("0::/user.slice/user-1000.slice/session-3.scope", "", ""),
    ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/vim.service", "vim", ""),
    ("0::/init.scope", "", ""),
    (f"0::/system.slice/docker-{ID}.scope", "", ID[:12]),
    (f"0::/docker/{ID}", "", ID[:12]),
    (f"0::/machine.slice/libpod-{ID}.scope/container", "", ID[:12]),
    (f"0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope", "", ID[:12]),
    (f"0::/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{ID}", "", ID[:12]),
    (f"0::/docker/{ID}/system.slice/nginx.service", "nginx", ID[:12]),
    ("0::/lxc.payload.web/system.slice/cron.service", "cron", "web"),
    (r"0::/machine.slice/machine-deb\x2d12.scope", "", "deb-12"),
    ("5:memory:/\n1:name=systemd:/system.slice/ssh.service\n0::/", "ssh", ""),
    (f"5:memory:/docker/{ID}\n1:name=systemd:/\n", "", ID[:12]),
]


@pytest.mark.parametrize(("text", "unit", "container"), CGROUPS)
def test_cgroup_paths(text: str, unit: str, container: str) -> None:
    assert parse_cgroup(text) == CgroupNames(unit, container)


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
    return identities.labels((tgid, 1, 0), 1, name, False)


def test_own_labels() -> None:
    identities = Identities({"team": "web"})
    labels = _labels(identities, os.getpid())
    assert labels["executable"] == Path(sys.executable).resolve().name
    assert labels["team"] == "web"
    assert (
        labels["service"] == labels.get("unit") or labels.get("container") or labels["executable"]
    )
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
    assert labels == {"service": "nginx", "executable": "worker", "unit": "nginx"}


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


def test_a_program_in_memory_has_no_random_name(tmp_path: Path) -> None:
    program = os.memfd_create("sealed-91173221a7ea", 0)
    os.write(program, Path("/bin/sleep").read_bytes())
    child = subprocess.Popen([f"/proc/self/fd/{program}", "60"], pass_fds=[program])
    os.close(program)
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
    monkeypatch.setattr(identity, "Path", lambda name: tmp_path / str(name).removeprefix("/proc/"))
    identities = identity.Identities({})

    assert identities.labels((7, 1, 1), 1, "sshd", False)["service"] == "ssh"
    assert identities.labels((8, 1, 1), 50, "a", False)["service"] == "a"
    assert identities.labels((99, 1, 1), 1, "gone", False)["service"] == "gone"
    assert identities.labels((98, 1, 1), 50, "gone", False)["service"] == "a"
