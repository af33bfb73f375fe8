"""Cgroup paths as the runtimes write them."""

import pytest

from node_agent.processes.cgroups import CgroupNames, parse_cgroup

ID = "4e1f0c9a7d" + "0" * 54
OTHER = "b7" * 32
SHOWN = ID[:12]
TASK = "0123456789abcdef0123456789abcdef-2531612879"
POD = "kubepods-burstable-pod3e5e2b0f_5d7c_4a3e_9f0e_1f6f6c9f0a11.slice"
CGROUPS = [
    # nothing that says who it is
    ("", "", "", ""),
    ("nonsense", "", "", ""),
    ("0::/", "", "", ""),
    ("0::/init.scope", "", "", ""),
    ("0::/user.slice/user-1000.slice/session-3.scope", "", "", ""),
    ("0::/../../other.slice", "", "", ""),
    # systemd
    ("0::/system.slice/nginx.service", "nginx", "", ""),
    ("0::/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1", "", ""),
    (r"0::/system.slice/dev-disk\x2dby.service", "dev-disk-by", "", ""),
    ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/vim.service", "vim", "", ""),
    ("0::/system.slice/postgresql.service/workers", "postgresql", "", ""),
    # Docker: systemd driver, cgroupfs driver, rootless, inside another container
    (f"0::/system.slice/docker-{ID}.scope", "", SHOWN, "docker"),
    (f"0::/docker/{ID}", "", SHOWN, "docker"),
    (
        f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ID}.scope",
        "",
        SHOWN,
        "docker",
    ),
    (f"0::/docker/{OTHER}/docker/{ID}", "", SHOWN, "docker"),
    (f"0::/docker/{ID}/system.slice/nginx.service", "nginx", SHOWN, "docker"),
    (f"0::/actions_job/{ID}", "", SHOWN, "docker"),
    (f"0::/ecs/0123456789abcdef/{ID}", "", SHOWN, ""),
    (f"0::/ecs/{TASK}", "", TASK[:12], "docker"),
    # Podman, with its own cgroup inside, its monitor, in a user's session
    (f"0::/machine.slice/libpod-{ID}.scope/container", "", SHOWN, "podman"),
    (f"0::/machine.slice/libpod-conmon-{ID}.scope", "", "", ""),
    (f"0::/libpod_parent/libpod-{ID}", "", SHOWN, "podman"),
    (
        f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container",
        "",
        SHOWN,
        "podman",
    ),
    # Kubernetes: containerd and CRI-O, both drivers, half set up
    (
        f"0::/kubepods.slice/kubepods-burstable.slice/{POD}/cri-containerd-{ID}.scope",
        "",
        SHOWN,
        "containerd",
    ),
    (f"0::/kubepods.slice/kubepods-burstable.slice/{POD}/crio-{ID}.scope", "", SHOWN, "cri-o"),
    (f"0::/kubepods.slice/{POD}/crio-{ID}.scope/container", "", SHOWN, "cri-o"),
    (f"0::/kubepods.slice/{POD}/crio-conmon-{ID}.scope", "", "", ""),
    (f"0::/kubepods.slice/{POD}/docker-{ID}.scope", "", SHOWN, "docker"),
    (f"0::/kubepods/besteffort/pod3e5e2b0f-5d7c-4a3e-9f0e-1f6f6c9f0a11/{ID}", "", SHOWN, ""),
    (f"0::/system.slice/containerd.service/{POD}:cri-containerd:{ID}", "", SHOWN, "containerd"),
    (
        f"0::/kubelet.slice/kubelet-kubepods.slice/kubelet-{POD}/cri-containerd-{ID}.scope",
        "",
        SHOWN,
        "containerd",
    ),
    # containerd by itself
    (f"0::/default/{ID}", "", SHOWN, ""),
    (f"0::/system.slice/nerdctl-{ID}.scope", "", SHOWN, "containerd"),
    # LXC of both generations, systemd-nspawn, virtual machines
    ("0::/lxc.payload.web/system.slice/cron.service", "cron", "web", "lxc"),
    ("0::/lxc.payload.web/.lxc", "", "web", "lxc"),
    ("0::/lxc.monitor.web", "", "", ""),
    ("1:name=systemd:/lxc/web\n", "", "web", "lxc"),
    (r"0::/machine.slice/machine-deb\x2d12.scope", "", "deb-12", "systemd-nspawn"),
    (r"0::/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt/emulator", "", "qemu-1-vm", "qemu"),
    # version 1 alone, and hybrid
    (
        f"12:cpuset:/docker/{ID}\n5:memory:/docker/{ID}\n1:name=systemd:/docker/{ID}\n",
        "",
        SHOWN,
        "docker",
    ),
    ("5:memory:/\n1:name=systemd:/system.slice/ssh.service\n0::/", "ssh", "", ""),
    (f"5:memory:/docker/{ID}\n1:name=systemd:/\n", "", SHOWN, "docker"),
    (
        f"5:memory:/system.slice\n1:name=systemd:/system.slice/docker-{ID}.scope\n0::/system.slice",
        "",
        SHOWN,
        "docker",
    ),
    (f"3:cpu,cpuacct:/kubepods/burstable/pod1/{ID}\n", "", SHOWN, ""),
    (f"4:pids:/garden/3e5e2b0f-5d7c-4a3e-9f0e-1f6f6c9f0a11\n{ID}", "", "3e5e2b0f-5d7", "garden"),
    # what only looks like one
    (f"0::/docker/{ID[:40]}", "", "", ""),
    ("0::/docker", "", "", ""),
    (f"0::/system.slice/docker-{ID}.mount", "", "", ""),
]


@pytest.mark.parametrize(("text", "unit", "container", "runtime"), CGROUPS)
def test_cgroup_paths(text: str, unit: str, container: str, runtime: str) -> None:
    assert parse_cgroup(text) == CgroupNames(unit, container, runtime)


@pytest.mark.parametrize("separator", ["\r", "\v", "\f", "\x1c", "\x85", "\u2028"])
def test_a_name_with_another_line_end_is_one_name(separator: str) -> None:
    assert parse_cgroup(f"0::/a.service{separator}x\n") == CgroupNames("", "")
