"""Which mounts a process sees, and which may be entered."""

import os
import re
from pathlib import Path

import pytest

from node_agent.processes import mounts
from node_agent.processes.cgroups import parse_cgroup
from node_agent.processes.mounts import Mount, may_enter, parse_view

ROOT = b"21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"


def mount(kind: bytes, device: tuple[int, int] = (0, 200)) -> Mount:
    return Mount(90, 21, device, b"/mnt", kind)


def test_mounts_on_the_way_are_the_topmost_of_each_folder() -> None:
    view = parse_view(
        ROOT
        + b"30 21 0:40 / /a\\040b rw shared:3 master:2 - tmpfs none rw\n"
        + b"31 30 0:41 /sub /a\\040b/c rw - autofs systemd-1 rw\n"
        + b"32 31 8:2 / /a\\040b/c rw - xfs /dev/sda2 rw\n"
        + b"33 21 8:3 / /a\\040bc rw - xfs /dev/sda3 rw\n"
    )
    way = view.on_way(b"/a b/c/d")
    assert [(each.id, each.point) for each in way] == [(21, b"/"), (30, b"/a b"), (32, b"/a b/c")]
    assert [each.id for each in view.on_way(b"/a b/c")] == [21, 30, 32]
    assert [each.id for each in view.on_way(b"/a")] == [21]
    assert view.points[b"/a b"].kind == b"tmpfs"


@pytest.mark.parametrize("odd", [b"\r", b"\x0b", b"\x0c", b"\x1c", b"\x85", "\u2028".encode()])
def test_only_a_line_feed_ends_a_line(odd: bytes) -> None:
    line = b"90 21 0:77 / /mnt" + odd + b"x rw,nosuid - fuse.x host: rw,user_id=1000\n"
    view = parse_view(ROOT + line)
    assert view.points[b"/mnt" + odd + b"x"] == Mount(
        90, 21, (0, 77), b"/mnt" + odd + b"x", b"fuse.x"
    )


def test_a_file_system_that_somebody_serves_is_not_entered() -> None:
    view = parse_view(ROOT)
    for kind in (b"fuse", b"fuse.sshfs", b"nfs", b"nfs4", b"cifs", b"9p", b"ceph", b"autofs", b"x"):
        assert not may_enter(mount(kind), view), kind
    assert not may_enter(mount(b"fuseblk", (8, 5)), view)
    for kind in (b"tmpfs", b"btrfs", b"zfs", b"virtiofs"):
        assert may_enter(mount(kind), view), kind
    assert may_enter(mount(b"ext4", (8, 5)), view)


def test_an_overlay_is_entered_where_only_root_can_have_mounted_it() -> None:
    overlay = mount(b"overlay", (0, 4_000_000))
    assert may_enter(overlay, parse_view(ROOT))
    assert not may_enter(overlay, parse_view(ROOT, has_own_users=True))


def test_an_overlay_that_the_agent_sees_too_is_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's container engine mounted it, for processes of a user namespace."""
    line = b"95 21 0:200 / /var/lib/containers/1 rw - overlay overlay rw\n"
    own = parse_view(ROOT + line)
    monkeypatch.setattr(mounts, "view_of", lambda tgid: own if tgid == os.getpid() else None)
    assert may_enter(mount(b"overlay"), parse_view(ROOT, has_own_users=True))


def test_the_file_system_that_the_agent_runs_from_is_entered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = parse_view(b"21 1 0:23 / / rw,relatime - nfs4 server:/root rw\n")
    monkeypatch.setattr(mounts, "view_of", lambda _tgid: own)
    assert may_enter(own.points[b"/"], own)
    assert not may_enter(mount(b"nfs4"), own)


@pytest.mark.parametrize("package", ["node_agent", "aggregator", "wire", "confinement"])
def test_no_text_is_split_where_others_see_an_end_of_line(package: str) -> None:
    """str.splitlines splits at ten characters that a name may hold; so does reading as text."""
    found = []
    for path in (Path(__file__).parents[3] / package).rglob("*.py"):
        code = path.read_text()
        if ".splitlines(" in code or re.search(r'/(cgroup|mountinfo|mounts)"\)\.read_text', code):
            found.append(path.name)
    assert found == []


def test_a_control_group_whose_name_holds_a_carriage_return_is_one_line() -> None:
    text = "0::/system.slice/sshd.service\n9:cpu:/a\r0::/system.slice/forged.service\n"
    assert parse_cgroup(text).unit == "sshd"
