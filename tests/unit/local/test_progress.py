"""What is said on a terminal and in a file."""

import io

import pytest

from aggregator.local.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_in_a_file_a_step_is_one_line() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    with progress.step("Postgres"):
        progress.tick()
        progress.detail("waiting")
        progress.say("a word between")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "a word between"
    assert lines[1].startswith("  ok Postgres (")
    assert len(lines) == 2
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
    assert stream.getvalue().startswith("  !! aggregator (")
