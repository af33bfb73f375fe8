"""kernel.perf_event_paranoid while `flamefleet up` runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from aggregator.local.perf_events import perf_events_allowed


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Path]:
    """Where the level of before is kept; gone after every end."""
    yield tmp_path / "kept"
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("level", ["3", "4"])
def test_a_level_that_denies_is_lowered_and_put_back(
    tmp_path: Path, kept: Path, level: str
) -> None:
    sysctl = tmp_path / "perf_event_paranoid"
    sysctl.write_text(f"{level}\n")
    said: list[str] = []

    with pytest.raises(KeyboardInterrupt), perf_events_allowed(said.append, kept, sysctl):
        assert sysctl.read_text() == "2\n"
        assert kept.read_text() == f"{level}\n"
        raise KeyboardInterrupt

    assert sysctl.read_text() == f"{level}\n"
    assert said == [
        f"kernel.perf_event_paranoid is {level}, which denies profiling: 2 until the end"
    ]


@pytest.mark.parametrize("content", ["-1\n", "0\n", "2\n", "", "odd\n"])
def test_what_allows_or_is_not_known_stays(tmp_path: Path, kept: Path, content: str) -> None:
    sysctl = tmp_path / "perf_event_paranoid"
    sysctl.write_text(content)

    with perf_events_allowed(pytest.fail, kept, sysctl):
        assert sysctl.read_text() == content
    assert sysctl.read_text() == content


def test_what_somebody_set_meanwhile_stays(tmp_path: Path, kept: Path) -> None:
    sysctl = tmp_path / "perf_event_paranoid"
    sysctl.write_text("3\n")

    with perf_events_allowed(lambda _: None, kept, sysctl):
        sysctl.write_text("1\n")
    assert sysctl.read_text() == "1\n"


def test_what_can_not_be_written_is_left_to_the_check(tmp_path: Path, kept: Path) -> None:
    with perf_events_allowed(pytest.fail, kept, tmp_path / "missing" / "perf_event_paranoid"):
        pass


def test_a_level_that_a_killed_one_left_behind_is_put_back(tmp_path: Path, kept: Path) -> None:
    sysctl = tmp_path / "perf_event_paranoid"
    sysctl.write_text("2\n")
    kept.write_text("3\n")

    with perf_events_allowed(lambda _: None, kept, sysctl):
        assert sysctl.read_text() == "2\n"
    assert sysctl.read_text() == "3\n"


def test_a_level_that_was_set_after_a_killed_one_stays(tmp_path: Path, kept: Path) -> None:
    sysctl = tmp_path / "perf_event_paranoid"
    sysctl.write_text("1\n")
    kept.write_text("3\n")

    with perf_events_allowed(pytest.fail, kept, sysctl):
        assert sysctl.read_text() == "1\n"
    assert sysctl.read_text() == "1\n"
