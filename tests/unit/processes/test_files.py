"""Opening the files of processes that try to make us open other ones."""

import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from node_agent.processes import lookup
from node_agent.processes.errors import FileUnavailableError
from node_agent.processes.files import (
    find_mapped,
    is_same_file,
    key_of,
    may_read_memory,
    open_in_root,
    open_mapped,
)
from node_agent.processes.lookup import ForeignMountError, find_in_root
from node_agent.processes.mappings import Mapping, read_mappings, read_start_ticks
from node_agent.processes.mounts import Mount, parse_view


def _read(descriptor: int) -> bytes:
    try:
        return os.pread(descriptor, 1 << 20, 0)
    finally:
        os.close(descriptor)


def test_the_mapped_file_is_opened(sleeper) -> None:
    content = _read(open_mapped(sleeper.process.pid, sleeper.mapping()))
    assert content == Path("/bin/sleep").read_bytes()


def test_a_descriptor_is_not_inherited(sleeper) -> None:
    descriptor = open_mapped(sleeper.process.pid, sleeper.mapping())
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


def test_a_deleted_file_is_not_looked_for_by_its_name(sleeper) -> None:
    sleeper.path.unlink()
    mapping = sleeper.mapping()
    assert mapping.deleted
    sleeper.path.with_name(sleeper.path.name + " (deleted)").write_bytes(b"another")
    sleeper.path.write_bytes(b"another")
    found = find_mapped(sleeper.process.pid, mapping)  # root may look by the range of memory
    status = os.fstat(found)
    os.close(found)
    assert (status.st_ino, status.st_nlink) == (mapping.inode, 0)


@pytest.mark.parametrize("trick", ["symlink", "fifo", "other file", "folder"])
def test_what_took_the_files_place_is_never_opened(sleeper, trick: str, tmp_path: Path) -> None:
    mapping = sleeper.mapping()  # as read before the trick
    secret = tmp_path / "secret"
    secret.write_text("secret")
    sleeper.path.unlink()
    if trick == "symlink":
        sleeper.path.symlink_to(secret)
    elif trick == "fifo":
        os.mkfifo(sleeper.path)  # opening it would block for ever
    elif trick == "folder":
        sleeper.path.mkdir()
    else:
        secret.rename(sleeper.path)
    with pytest.raises(FileUnavailableError, match="deleted, replaced or not readable"):
        open_mapped(sleeper.process.pid, mapping)


def test_a_link_on_the_way_is_not_followed(sleeper, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    path = os.fsencode(tmp_path / "link" / sleeper.path.name)
    with pytest.raises(FileUnavailableError):
        open_mapped(sleeper.process.pid, sleeper.mapping()._replace(path=path))


def test_the_file_of_a_process_that_has_ended_is_found_by_name(sleeper) -> None:
    mapping = sleeper.mapping()
    sleeper.process.kill()
    sleeper.process.wait()
    content = _read(open_mapped(sleeper.process.pid, mapping))
    assert content == Path("/bin/sleep").read_bytes()


def test_a_wrong_inode_is_refused(sleeper) -> None:
    with pytest.raises(FileUnavailableError, match="deleted, replaced or not readable"):
        open_mapped(sleeper.process.pid, sleeper.mapping()._replace(inode=1))


def test_a_wrong_device_is_refused(sleeper) -> None:
    mapping = sleeper.mapping()
    with pytest.raises(FileUnavailableError, match="deleted, replaced or not readable"):
        open_mapped(sleeper.process.pid, mapping._replace(minor=mapping.minor + 1))


@pytest.mark.parametrize(
    ("kind", "inode", "device", "is_same"),
    [
        (b"ext4", 7, (8, 1), True),
        (b"ext4", 7, (8, 2), False),
        (b"ext4", 8, (8, 1), False),
        (b"btrfs", 7, (8, 1), True),
        (b"btrfs", 7, (0, 9), False),  # the subvolume's, which only stat shows
        (b"overlay", 7, (8, 1), True),
        (b"overlay", 7, (8, 2), True),  # the layer's, before Linux 6.7
        (b"overlay", 8, (8, 1), False),
    ],
)
def test_a_file_is_the_same_by_the_device_of_its_mount(
    kind: bytes, inode: int, device: tuple[int, int], is_same: bool
) -> None:
    found = os.stat_result((stat.S_IFREG | 0o755, 7, 99, 1, 0, 0, 1, 0, 0, 0))
    mapping = Mapping(0x1000, 0x2000, 0, *device, inode, b"/x")
    assert is_same_file(found, Mount(1, 0, (8, 1), b"/", kind), mapping) is is_same
    folder = os.stat_result((stat.S_IFDIR | 0o755, 7, 99, 1, 0, 0, 1, 0, 0, 0))
    assert not is_same_file(folder, Mount(1, 0, (8, 1), b"/", kind), mapping)


def test_a_folder_or_a_link_is_not_opened_in_a_root(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(__file__)
    for path in (tmp_path, tmp_path / "link", Path("/dev/null")):
        with pytest.raises(OSError):
            open_in_root(os.getpid(), os.fsencode(path))


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts file systems; they go with the test."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount")
    points: list[Path] = []

    def mount(name: str, kind: str, options: str = "rw", source: str | Path = "none") -> Path:
        point = tmp_path / name
        point.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", kind, "-o", options, source, point], check=True)
        points.append(point)
        return point

    yield mount
    for point in reversed(points):
        subprocess.run(["umount", "-l", point], check=True)


@pytest.fixture
def run(await_program: Callable[[subprocess.Popen[bytes]], None]) -> Iterator[Callable]:
    """Starts a program; its process id and the mapping of it."""
    running: list[subprocess.Popen[bytes]] = []

    def start(path: Path) -> tuple[int, Mapping]:
        process = subprocess.Popen([path, "600"])
        running.append(process)
        await_program(process)
        entries = read_mappings(process.pid, read_start_ticks(process.pid) * 10_000_000).entries
        return process.pid, next(m for m in entries if m.path == os.fsencode(path))

    yield start
    for process in running:
        process.kill()
        process.wait()


def test_files_of_an_overlay_are_found_whatever_layer_they_are_of(
    mounted: Callable[..., Path], run: Callable
) -> None:
    base, other = mounted("base", "tmpfs"), mounted("other", "tmpfs")
    for folder in ("lower", "upper", "work"):
        (base / folder).mkdir()
    shutil.copy("/bin/sleep", base / "lower" / "below")
    shutil.copy("/bin/sleep", other / "elsewhere")
    options = f"lowerdir={base}/lower:{other},upperdir={base}/upper,workdir={base}/work"
    overlay = mounted("overlay", "overlay", options)
    shutil.copy("/bin/sleep", overlay / "above")
    for name in ("below", "elsewhere", "above"):
        pid, mapping = run(overlay / name)
        # If these were equal, nothing would be to be handled.
        assert (overlay / name).stat().st_dev != os.makedev(mapping.major, mapping.minor)
        assert _read(open_mapped(pid, mapping)) == Path("/bin/sleep").read_bytes()
        assert may_read_memory(pid, mapping)


def test_files_of_btrfs_are_told_apart_by_their_subvolume(
    mounted: Callable[..., Path], run: Callable, tmp_path: Path
) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(200 << 20)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True, capture_output=True)
    folder = mounted("btrfs", "btrfs", "loop", image)
    found = []
    for name in ("first", "second"):
        subprocess.run(["btrfs", "-q", "subvolume", "create", folder / name], check=True)
        program = folder / name / "program"
        shutil.copy("/bin/sleep", program)
        pid, mapping = run(program)
        assert program.stat().st_dev != os.makedev(mapping.major, mapping.minor)
        descriptor = find_mapped(pid, mapping)
        found.append((mapping[3:6], key_of(descriptor)))
        os.close(descriptor)
        assert _read(open_mapped(pid, mapping)) == Path("/bin/sleep").read_bytes()
    assert found[0][0] == found[1][0]  # of one device and number, as the kernel shows them
    assert found[0][1] != found[1][1]


def test_equal_inode_numbers_on_two_devices_are_two_files(
    mounted: Callable[..., Path], run: Callable
) -> None:
    true, false = mounted("true", "tmpfs"), mounted("false", "tmpfs")
    for folder in (true, false):
        shutil.copy("/bin/sleep", folder / "program")
    pid, mapping = run(true / "program")
    assert (true / "program").stat().st_ino == (false / "program").stat().st_ino
    subprocess.run(["mount", "--bind", false, true], check=True)
    try:
        with pytest.raises(FileUnavailableError):
            find_mapped(pid, mapping)
    finally:
        subprocess.run(["umount", true], check=True)
    os.close(find_mapped(pid, mapping))


def test_a_mount_made_after_the_look_is_not_entered(
    mounted: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside of one mount no other is entered, whatever the list of mounts says."""
    folder = mounted("new", "tmpfs")
    (folder / "file").write_text("x")
    descriptor, mount = find_in_root(os.getpid(), os.fsencode(folder / "file"))
    os.close(descriptor)
    assert mount.point == os.fsencode(folder)
    root = Path("/proc/self/mountinfo").read_bytes().split(b"\n")
    earlier = parse_view(b"\n".join(line for line in root if os.fsencode(folder) not in line))
    monkeypatch.setattr(lookup, "view_of", lambda *_, **__: earlier)
    with pytest.raises(ForeignMountError, match="mounted there meanwhile"):
        find_in_root(os.getpid(), os.fsencode(folder / "file"))


def test_an_id_that_is_another_mounts_by_now_is_noticed(
    mounted: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = mounted("reused", "tmpfs")
    (folder / "file").write_text("x")
    path = os.fsencode(folder / "file")
    now = parse_view(Path("/proc/self/mountinfo").read_bytes())
    real = now.points[os.fsencode(folder)]
    for lie in (
        real._replace(device=(8, 99), kind=b"ext4"),
        real._replace(point=b"/elsewhere"),
    ):
        earlier = now._replace(mounts={**now.mounts, real.id: lie})
        monkeypatch.setattr(lookup, "view_of", lambda *_, earlier=earlier, **__: earlier)
        with pytest.raises(ForeignMountError):
            find_in_root(os.getpid(), path)


def test_a_root_that_is_no_mount_is_not_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that went below a FUSE file system with chroot shows no mount of it."""
    monkeypatch.setattr(lookup, "view_of", lambda *_, **__: parse_view(b""))
    with pytest.raises(ForeignMountError, match="mount is not known"):
        find_in_root(os.getpid(), b"/etc/passwd")
