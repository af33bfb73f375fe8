"""What is said on a terminal and in a file."""

import io

import pytest

from aggregator.local.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_in_a_file_a_step_is_told_as_it_begins_and_when_it_is_over() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    with progress.step("Postgres"):
        progress.tick()
        progress.detail("waiting")
        progress.say("a word between")
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["  .. Postgres", "a word between"]
    assert lines[2].startswith("  ok Postgres (")
    assert len(lines) == 3
    assert "\r" not in stream.getvalue()


def test_on_a_terminal_the_running_step_is_drawn_again() -> None:
    stream = Terminal()
    progress = Progress(stream)
    with progress.step("Postgres"):
        progress.detail("a long reason for waiting")
        progress.tick()
    drawn, _, said = stream.getvalue().rpartition("\r")
    assert drawn.count("\r") >= 3
    assert "a long reason for waiting" in drawn
    assert said.startswith("  ok Postgres (")
    assert said.count("\n") == 1


def test_a_failed_step_is_marked() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    with pytest.raises(ValueError, match="no"), progress.step("aggregator"):
        raise ValueError("no")
    assert stream.getvalue().splitlines()[1].startswith("  !! aggregator (")


def test_in_a_file_a_long_step_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("aggregator.local.progress.time.monotonic", lambda: clock[0])
    stream = io.StringIO()
    progress = Progress(stream)
    with progress.step("first samples"):
        for second in range(25):
            clock[0] = 100.0 + second
            progress.tick()
    lines = stream.getvalue().splitlines()
    assert lines == [
        "  .. first samples",
        "  .. first samples (10.0 s)",
        "  .. first samples (20.0 s)",
        "  ok first samples (24.0 s)",
    ]
