"""Opening the files of processes that try to make us open other ones."""

import io
import os
from pathlib import Path

import pytest

from node_agent.processes import files
from node_agent.processes.errors import FileUnavailableError
from node_agent.processes.files import is_fuse, open_mapped, stat_mapped
from node_agent.processes.mappings import Mapping


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


def test_a_deleted_file_is_still_the_one_that_runs(sleeper) -> None:
    sleeper.path.unlink()
    mapping = sleeper.mapping()
    assert mapping.deleted
    assert stat_mapped(sleeper.process.pid, mapping) is None
    assert _read(open_mapped(sleeper.process.pid, mapping)) == Path("/bin/sleep").read_bytes()


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
    assert _read(open_mapped(sleeper.process.pid, mapping)) == Path("/bin/sleep").read_bytes()


def test_a_link_on_the_way_is_not_followed(sleeper, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    path = os.fsencode(tmp_path / "link" / sleeper.path.name)
    # Addresses without a mapping, so that only the name can lead to the file.
    mapping = Mapping(0x1000, 0x2000, 0, 8, 0, sleeper.inode, path)
    with pytest.raises(FileUnavailableError):
        open_mapped(sleeper.process.pid, mapping)


def test_the_file_of_a_process_that_has_ended_is_found_by_name(sleeper) -> None:
    mapping = sleeper.mapping()
    sleeper.process.kill()
    sleeper.process.wait()
    content = _read(open_mapped(sleeper.process.pid, mapping))
    assert content == Path("/bin/sleep").read_bytes()


def test_a_wrong_inode_is_refused(sleeper) -> None:
    mapping = sleeper.mapping()._replace(inode=1, start=0x1000, end=0x2000)
    with pytest.raises(FileUnavailableError, match="deleted, replaced or not readable"):
        open_mapped(sleeper.process.pid, mapping)


def test_files_on_block_devices_are_not_fuse(sleeper) -> None:
    mapping = sleeper.mapping()
    assert not is_fuse(sleeper.process.pid, mapping)


def test_a_fuse_file_system_over_the_folder_of_a_mapping_is_not_entered(
    sleeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapping = sleeper.mapping()
    folder = str(tmp_path).replace(" ", "\\040")
    lines = [
        "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw",
        f"90 21 0:77 / {folder} rw,nosuid - fuse.sshfs host: rw,user_id=1000",
    ]
    monkeypatch.setattr(Path, "open", lambda *_: io.BytesIO("\n".join(lines).encode()))
    files._fuse_mounts.cache_clear()
    try:
        assert is_fuse(1, mapping)
        assert is_fuse(1, mapping._replace(path=b"/elsewhere", major=0, minor=77))
        assert not is_fuse(1, mapping._replace(path=b"/elsewhere"))
        assert not is_fuse(1, mapping._replace(path=bytes(tmp_path) + b"-beside/x"))
        assert stat_mapped(1, mapping) is None
        with pytest.raises(FileUnavailableError, match="FUSE"):
            open_mapped(1, mapping)
    finally:
        files._fuse_mounts.cache_clear()
