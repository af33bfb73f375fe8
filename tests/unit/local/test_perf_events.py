"""kernel.perf_event_paranoid while `flamefleet up` runs."""

from pathlib import Path

import pytest

from aggregator.local.perf_events import perf_events_allowed


@pytest.mark.parametrize("level", ["3", "4"])
def test_a_level_that_denies_is_lowered_and_put_back(tmp_path: Path, level: str) -> None:
    sysctl = tmp_path / "perf_event_paranoid"
    sysctl.write_text(f"{level}\n")
    said: list[str] = []

    with pytest.raises(KeyboardInterrupt), perf_events_allowed(said.append, sysctl):
        assert sysctl.read_text() == "2\n"
        raise KeyboardInterrupt

    assert sysctl.read_text() == f"{level}\n"
    assert said == [
        f"kernel.perf_event_paranoid is {level}, which denies profiling: 2 until the end"
    ]


@pytest.mark.parametrize("content", ["-1\n", "0\n", "2\n", "", "odd\n"])
def test_what_allows_or_is_not_known_stays(tmp_path: Path, content: str) -> None:
    sysctl = tmp_path / "perf_event_paranoid"
    sysctl.write_text(content)

    with perf_events_allowed(pytest.fail, sysctl):
        assert sysctl.read_text() == content
    assert sysctl.read_text() == content


def test_what_somebody_set_meanwhile_stays(tmp_path: Path) -> None:
    sysctl = tmp_path / "perf_event_paranoid"
    sysctl.write_text("3\n")

    with perf_events_allowed(lambda _: None, sysctl):
        sysctl.write_text("1\n")
    assert sysctl.read_text() == "1\n"


def test_what_can_not_be_written_is_left_to_the_check(tmp_path: Path) -> None:
    with perf_events_allowed(pytest.fail, tmp_path / "missing" / "perf_event_paranoid"):
        pass
