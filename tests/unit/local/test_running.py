"""Where commands look for the `flamefleet up` that runs here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aggregator.errors import ConfigError
from aggregator.local.data_folder import DataFolder
from aggregator.local.options import UpOptions
from aggregator.local.running import running_config, running_url, written_down


@pytest.fixture
def entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "run"
    monkeypatch.setenv("FLAMEFLEET_RUN_DIR", str(folder))
    return folder


def test_while_one_runs_its_centre_is_found(entries: Path, tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.root.mkdir()
    folder.centre_config.write_text("")
    assert (running_config(), running_url()) == (None, None)
    with written_down(UpOptions(folder.root, port=8399), folder):
        assert running_config() == folder.centre_config
        assert running_url() == "http://127.0.0.1:8399"
        (entry,) = entries.iterdir()
        assert entry.stat().st_mode & 0o777 == 0o644
    assert (running_config(), running_url()) == (None, None)


def test_one_that_was_killed_is_not_found(entries: Path, tmp_path: Path) -> None:
    """Its process id may be another program's by now: here it is ours, with another start."""
    entries.mkdir()
    one = {"pid": os.getpid(), "started": 1, "url": "http://127.0.0.1:1", "config": str(tmp_path)}
    (entries / "1.json").write_text(json.dumps(one))
    assert (running_config(), running_url()) == (None, None)


@pytest.mark.parametrize("content", ["", "[]", "5", '{"pid": 1}', '{"other": 1}', "\udcff"])
def test_what_is_no_entry_is_passed_over(entries: Path, content: str) -> None:
    entries.mkdir()
    (entries / "1.json").write_bytes(content.encode(errors="surrogateescape"))
    assert running_url() is None


def test_anothers_configuration_names_the_way(entries: Path, tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "not-there")
    with written_down(UpOptions(folder.root, port=8399), folder):
        with pytest.raises(ConfigError) as caught:
            running_config()
        assert "sudo" in caught.value.remedy
        assert running_url() == "http://127.0.0.1:8399"


def test_where_no_entry_can_be_written_it_runs_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FLAMEFLEET_RUN_DIR", str(tmp_path / "file/run"))
    folder = DataFolder(tmp_path)
    with written_down(UpOptions(folder.root), folder):
        assert running_url() is None


def test_a_home_that_may_not_be_entered_is_no_error(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to close a folder")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    code = (
        "import os, sys; os.setgid(65534); os.setuid(65534);"
        "from pathlib import Path; from aggregator.local.running import _read;"
        f"sys.exit(len(_read(Path({str(closed / 'run')!r}))))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == 0
