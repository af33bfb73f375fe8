"""[agent.exclude]: what is taken, and what is refused by name and value."""

from pathlib import Path
from typing import Any

import pytest

from node_agent.config import load_config
from node_agent.errors import ConfigError
from node_agent.exclusions import ExcludeConfig, check_exclude
from node_agent.settings import SettingError

LONG = "x" * 127


def test_lists_of_the_file_reach_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(
        "[agent.exclude]\n"
        'units = ["vault", "backup.timer.service", "user.slice", "vault.service"]\n'
        'users = ["alice", 1000, "1000"]\n'
        'executables = ["/usr/bin//gpg", "ssh-agent"]\n'
        'cgroups = ["/system.slice/secret.service/"]\n'
    )

    assert load_config(path, {}, {}).exclude == ExcludeConfig(
        units=("vault.service", "backup.timer.service", "user.slice"),
        users=("alice", "1000"),
        executables=("/usr/bin/gpg", "ssh-agent"),
        cgroups=("/system.slice/secret.service",),
    )


def test_nothing_is_excluded_unless_configured() -> None:
    assert not load_config(None, {}, {}).exclude
    assert check_exclude({"users": ["alice"]})


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"units": ["web-*.service"]}, "units has 'web-*.service'; it must be the name of one"),
        ({"units": ["a/b"]}, "units has 'a/b'"),
        ({"units": [LONG]}, "units has 'xxx"),
        ({"units": [""]}, "units has ''"),
        ({"units": "nginx"}, "units is 'nginx'; it must be a list"),
        ({"users": [-1]}, "users has -1; it must be the name of a user, or an id of 0 to"),
        ({"users": [4294967295]}, "users has 4294967295"),
        ({"users": [True]}, "users has True"),
        ({"executables": ["bin/a"]}, "executables has 'bin/a'; it must be the name of a file or"),
        ({"executables": ["/a/../b"]}, "executables has '/a/../b'"),
        ({"executables": ["/" + "a/" * 21]}, "executables has '/a/a"),
        ({"executables": [f"/{LONG}"]}, "executables has '/xxx"),
        ({"cgroups": ["system.slice"]}, "cgroups has 'system.slice'; it must be an absolute path"),
        ({"cgroups": ["/"]}, "cgroups has '/'"),
        ({"cgroups": [3]}, "cgroups has 3"),
        ({"unit": []}, "unit is not a setting; did you mean units?"),
        (["nginx"], "exclude is ['nginx']; it must be a table"),
        ({"users": ["a"] * 257}, "at most 256"),
    ],
)
def test_a_fault_names_field_and_value(table: Any, words: str) -> None:
    with pytest.raises(SettingError) as caught:
        check_exclude(table)

    assert words in str(caught.value)


def test_every_fault_has_its_line_and_file(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text('[agent.exclude]\nunits = ["*"]\nusers = [-1]\n')

    with pytest.raises(ConfigError) as caught:
        load_config(path, {}, {})

    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert all(line.endswith(f"(in {path})") for line in lines)
