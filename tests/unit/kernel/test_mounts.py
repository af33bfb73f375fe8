from node_agent.kernel.cgroup_roots import parse_systemd_hierarchy
from node_agent.kernel.mounts import Mount, parse_mounts, place_in_file_system

MOUNTS = parse_mounts(
    "22 1 8:1 /@root / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
    "23 22 8:2 / /usr rw - btrfs /dev/sda2 rw,subvol=/\n"
    "24 22 0:25 / /with\\040space rw - tmpfs tmpfs rw\n"
    "25 22 8:3 /below /over rw - ext4 /dev/sda3 rw\n"
    "26 22 8:4 / /over rw - ext4 /dev/sda4 rw\n"
    "27 22 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
    "nonsense\n"
)
DISK = 8 << 20


def test_mounts_are_read_with_their_escapes_and_options() -> None:
    assert MOUNTS[0] == Mount(DISK | 1, "/@root", "/", "ext4", ("rw",))
    assert MOUNTS[2].point == "/with space"
    assert "name=systemd" in MOUNTS[5].options
    assert len(MOUNTS) == 6


def test_a_path_lies_below_the_deepest_and_latest_mount() -> None:
    assert place_in_file_system("/opt/app", MOUNTS) == (DISK | 1, "/@root/opt/app")
    assert place_in_file_system("/usr/bin/a", MOUNTS) == (DISK | 2, "/bin/a")
    assert place_in_file_system("/usrlocal/a", MOUNTS) == (DISK | 1, "/@root/usrlocal/a")
    assert place_in_file_system("/with space/a", MOUNTS) == (25, "/a")
    assert place_in_file_system("/over/a", MOUNTS) == (DISK | 4, "/a")
    assert place_in_file_system("/a", []) is None


def test_the_hierarchy_of_systemd_is_known_by_name() -> None:
    text = "13:memory:/a\n9:name=systemd:/init.scope\n0::/init.scope\n"
    assert parse_systemd_hierarchy(text) == 9
    assert parse_systemd_hierarchy("0::/init.scope\n") == 0
