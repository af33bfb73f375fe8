"""Commands in messages are named so that they can be pasted into a shell here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wire.called_as import as_called, called


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with both commands in .venv/bin, which is the current one; PATH lacks them."""
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    for name in ("python", "flamefleet", "flamefleet-agent"):
        (programs / name).write_text("#!/bin/sh\necho called\n")
        (programs / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setattr(sys, "argv", [".venv/bin/flamefleet"])
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("run `flamefleet token create NODE`", "run `.venv/bin/flamefleet token create NODE`"),
        ("`flamefleet up` runs", "`.venv/bin/flamefleet up` runs"),
        ("see `flamefleet-agent check`", "see `.venv/bin/flamefleet-agent check`"),
        ("sudo flamefleet-agent check", "sudo .venv/bin/flamefleet-agent check"),
        ("flamefleet-agent run --reset-breaker", ".venv/bin/flamefleet-agent run --reset-breaker"),
        ("flamefleet: no such file", "flamefleet: no such file"),
        ("pip install 'flamefleet[centre]'", "pip install 'flamefleet[centre]'"),
        ("`/opt/flamefleet up`", "`/opt/flamefleet up`"),
    ],
)
@pytest.mark.usefixtures("checkout")
def test_in_a_checkout_a_command_has_its_path(text: str, shown: str) -> None:
    assert as_called(text) == shown


def test_a_path_that_holds_anywhere_is_absolute(checkout: Path) -> None:
    assert called("flamefleet", anywhere=True) == str(checkout / ".venv/bin/flamefleet")


def test_started_from_elsewhere_it_is_absolute(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [str(checkout / ".venv/bin/flamefleet")])
    for folder in ("/", "/usr"):
        monkeypatch.chdir(folder)
        shown = called("flamefleet-agent")
        done = subprocess.run([shown], check=True, capture_output=True, text=True)
        assert done.stdout == "called\n"


def test_where_the_shell_finds_it_the_name_is_enough(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{checkout}/.venv/bin:/usr/bin:/bin")
    assert called("flamefleet-agent") == "flamefleet-agent"
    assert called("flamefleet", anywhere=True) == "flamefleet"


def test_another_one_of_that_name_in_the_path_is_not_meant(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = checkout / "other"
    other.mkdir()
    (other / "flamefleet").write_text("#!/bin/sh\n")
    (other / "flamefleet").chmod(0o755)
    monkeypatch.setenv("PATH", f"{other}:{checkout}/.venv/bin")
    assert called("flamefleet") == ".venv/bin/flamefleet"


def test_where_there_is_none_the_name_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(sys, "argv", ["-c"])
    assert called("flamefleet") == "flamefleet"


def test_in_a_folder_that_is_gone_the_name_remains(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = checkout / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert called("flamefleet") == "flamefleet"
    os.chdir(checkout)
