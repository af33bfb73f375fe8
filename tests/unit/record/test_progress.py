"""What `record` says on a terminal and in a pipe."""

import io

import pytest

from node_agent.record.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work(stream: io.StringIO, clock: list[float]) -> None:
    progress = Progress(stream)
    progress.begin("naming")
    for number in range(1, 41):
        clock[0] += 0.3
        progress.show(f"naming: {number} of 40 files")
    progress.say("no names in a")
    progress.end()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("node_agent.record.progress.time.monotonic", lambda: now[0])
    return now


def test_in_a_pipe_a_stage_is_a_line_and_one_every_few_seconds(clock: list[float]) -> None:
    stream = io.StringIO()
    work(stream, clock)
    assert stream.getvalue().splitlines() == [
        "flamefleet-agent record: naming",
        "flamefleet-agent record: naming: 17 of 40 files",
        "flamefleet-agent record: naming: 34 of 40 files",
        "flamefleet-agent record: no names in a",
    ]


def test_on_a_terminal_one_line_is_written_again(clock: list[float]) -> None:
    stream = Terminal()
    work(stream, clock)
    drawn, said, end = stream.getvalue().split("\n")
    assert drawn.split("\r")[1] == "naming"
    assert drawn.split("\r")[-1] == "naming: 40 of 40 files"
    assert said == "flamefleet-agent record: no names in a"
    assert end == ""
