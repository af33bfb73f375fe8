"""The data folder: what it accepts, what others may read, and its lock."""

import os
from pathlib import Path

import pytest

from aggregator.local.data_folder import ROOT_DEFAULT, DataFolder, default_data_folder
from aggregator.local.errors import InUseError, LocalError
from aggregator.local.sockets import socket_folder


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(LocalError, match="--data-dir"):
        DataFolder(tmp_path).create()
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]


def test_one_owner_at_a_time(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.create()
    lock = folder.acquire()
    with pytest.raises(InUseError, match=rf"process {os.getpid()}\b.*--data-dir"):
        folder.acquire()
    os.close(lock)
    folder.create()
    os.close(folder.acquire())


def test_secrets_are_the_owners_alone(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.create()
    folder.write_private(folder.centre_config, "first")
    folder.write_private(folder.centre_config, "second")
    assert folder.centre_config.read_text() == "second"
    assert folder.centre_config.stat().st_mode & 0o077 == 0
    assert folder.logs.stat().st_mode & 0o077 == 0


def test_a_renamed_host_gets_another_token(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    names = [folder.agent_token(node) for node in ("a", "b", "../x")]
    assert len(set(names)) == 3
    assert all(name.parent == tmp_path for name in names)


def test_the_default_depends_on_who_we_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_data_folder() == ROOT_DEFAULT
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/home/me/data")
    assert default_data_folder() == Path("/home/me/data/flamefleet")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert default_data_folder() == Path("/home/me/.local/share/flamefleet")


def test_a_long_path_gets_a_socket_folder_elsewhere_and_the_same_again(tmp_path: Path) -> None:
    short = socket_folder(tmp_path / "s", None) if len(str(tmp_path)) < 60 else None
    assert short in (None, tmp_path / "s")
    long = tmp_path / ("x" * 100)
    folder = socket_folder(long, None)
    try:
        assert len(str(folder)) < 80
        assert folder.stat().st_mode & 0o777 == 0o700
        assert socket_folder(long, None) == folder
    finally:
        folder.rmdir()


def test_somebody_elses_socket_folder_is_not_used(tmp_path: Path) -> None:
    long = tmp_path / ("y" * 100)
    folder = socket_folder(long, None)
    folder.rmdir()
    folder.symlink_to(tmp_path)
    try:
        with pytest.raises(LocalError, match="belongs to somebody else"):
            socket_folder(long, None)
    finally:
        folder.unlink()
