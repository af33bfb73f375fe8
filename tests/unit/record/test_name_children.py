"""The children that name: their bound, and what is said when one fails. Real children."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from node_agent.record import name_children
from node_agent.record.name_children import ask_children
from node_agent.record.progress import Progress
from wire.schema import ModuleKind


def request(path: str, count: int = 3) -> list[dict[str, object]]:
    """`count` times the functions at two places of a file."""
    return [
        {
            "kind": int(ModuleKind.NATIVE),
            "fd": os.open(path, os.O_RDONLY),
            "debug_fd": None,
            "name": f"file{number}",
            "base": 0,
            "size": 0,
            "offsets": [0, 4096],
        }
        for number in range(count)
    ]


def close(entries: list[dict[str, object]]) -> None:
    for entry in entries:
        assert isinstance(entry["fd"], int)
        os.close(entry["fd"])


def test_every_file_is_answered_and_counted() -> None:
    stream = io.StringIO()
    entries = request(sys.executable)
    assert len(ask_children(entries, Progress(stream))) == 3
    assert "naming the functions of 3 files" in stream.getvalue()
    assert "no names" not in stream.getvalue()
    close(entries)


def test_the_limit_of_all_together_ends_the_naming(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_children, "LIMIT_S", -1.0)
    stream = io.StringIO()
    entries = request(sys.executable)
    assert ask_children(entries, Progress(stream)) == []
    assert "ended by its limit" in stream.getvalue()
    assert "3 of 3 files have no names" in stream.getvalue()
    close(entries)


def test_a_reader_that_hangs_is_ended_by_the_limit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mark = tmp_path / "pid"
    hang = f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    monkeypatch.setattr(name_children, "child_command", lambda *_: [sys.executable, "-c", hang])
    monkeypatch.setattr(name_children, "LIMIT_S", 3.0)
    stream = io.StringIO()
    entries = request(sys.executable)
    assert ask_children(entries, Progress(stream)) == []
    assert "ended by its limit" in stream.getvalue()
    if mark.exists() and mark.read_text():
        gone = subprocess.run(["ps", "-p", mark.read_text()], capture_output=True, check=False)
        assert gone.returncode == 1
    close(entries)


def test_a_reader_that_fails_costs_the_names_of_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    fail = "print('[[], []]', flush=True); raise SystemExit(1)"
    monkeypatch.setattr(name_children, "child_command", lambda *_: [sys.executable, "-c", fail])
    stream = io.StringIO()
    entries = request(sys.executable, 4)
    assert ask_children(entries, Progress(stream)) == [[[], []], [], [[], []], []]
    assert "no names in file1" in stream.getvalue()
    assert "no names in file3" in stream.getvalue()
    close(entries)


@pytest.mark.parametrize(
    "says",
    [
        "while True: os.write(1, b'x' * 65536)",
        "print('[[], [], []]')",
        "print('[[[1, 2]], []]')",
        "print('[' * 100_000)",
        """print('[[["f", "", 1e999]], []]')""",
    ],
    ids=["endless", "too-many", "no-line", "nested", "infinite"],
)
def test_a_reader_that_says_anything_else_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    monkeypatch.setattr(name_children, "MAX_ANSWER_BYTES", 1 << 20)
    command = [sys.executable, "-c", f"import os\n{says}"]
    monkeypatch.setattr(name_children, "child_command", lambda *_: command)
    stream = io.StringIO()
    entries = request(sys.executable, 1)
    assert ask_children(entries, Progress(stream)) == [[]]
    assert "no names in file0" in stream.getvalue()
    close(entries)
