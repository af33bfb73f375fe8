"""Lines of the log: their form, and that they do not flood it."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from node_agent.cli import _tell, main
from node_agent.kernel.errors import KernelError
from node_agent.log import BURST, MAX_VALUE_CHARACTERS, Lasting, Log, render
from wire.called_as import called


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"rate_hz": 19, "mode": "core"}, "rate_hz=19 mode=core"),
        ({"cpu_percent": 1.3371, "limit": 1.0}, "cpu_percent=1.337 limit=1"),
        ({"bytes": 123456.7}, "bytes=123457"),
        ({"spool_dir": "/var/lib/flame-fleet_1"}, "spool_dir=/var/lib/flame-fleet_1"),
        ({"remedy": 'Run "x = 1".\nOr\\not.'}, 'remedy="Run \\"x = 1\\".\\nOr\\\\not."'),
        ({"name": "\x1b[31mä\x07", "empty": ""}, 'name="?[31mä?"'),
        ({"key": "a=b"}, 'key="a=b"'),
    ],
)
def test_a_line_is_fields_that_a_program_can_read(
    fields: dict[str, str | int | float], line: str
) -> None:
    assert render("info", "start", "all is well", fields) == (
        f'level=info event=start words="all is well" {line}'
    )


def test_a_long_value_is_cut() -> None:
    assert len(render("info", "x", "y" * 9999, {})) < MAX_VALUE_CHARACTERS + 60


def test_the_same_line_and_a_flood_are_held_back_and_counted() -> None:
    stream = io.StringIO()
    lines_of = Log("ship", stream)

    lines_of.warning("spool", "full")
    lines_of.warning("spool", "full")
    lines_of.warning("spool", "emptier")
    for number in range(BURST + 5):
        lines_of.info("refused", f"batch {number}")

    lines = stream.getvalue().splitlines()
    assert lines[:2] == [
        "flamefleet-agent ship: level=warning event=spool words=full",
        "flamefleet-agent ship: level=warning event=spool words=emptier suppressed=1",
    ]
    # a slow machine earns another line every two seconds
    assert BURST <= len(lines) - 2 < BURST + 5


def test_the_journal_gets_priorities(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    code = (
        "from node_agent.log import Log\n"
        "log = Log('run')\nlog.info('a')\nlog.warning('b')\nlog.error('c')"
    )
    with path.open("w") as journal:
        facts = os.fstat(journal.fileno())
        environ = {**os.environ, "JOURNAL_STREAM": f"{facts.st_dev}:{facts.st_ino}"}
        subprocess.run([sys.executable, "-c", code], stderr=journal, env=environ, check=True)

    assert path.read_text().splitlines() == [
        "<6>flamefleet-agent run: level=info event=a",
        "<4>flamefleet-agent run: level=warning event=b",
        "<3>flamefleet-agent run: level=error event=c",
    ]


def test_what_lasts_is_told_at_once_then_seldom_and_when_it_is_over() -> None:
    stream = io.StringIO()
    lasting = Lasting(Log("run", stream), "overhead", every_s=600, calm_s=60)

    lasting.clear("well", 0)
    for now_s in range(10, 1300, 10):
        lasting.note("too much", now_s, cpu_percent=1 + now_s / 1000)
    lasting.clear("well", 1310)
    lasting.note("too much", 1320, cpu_percent=1.5)
    for now_s in range(1330, 1500, 10):
        lasting.clear("well", now_s, cpu_percent=0.5)
    lasting.note("too much", 1500, cpu_percent=2.0)

    head = "flamefleet-agent run: level="
    assert stream.getvalue().splitlines() == [
        f'{head}warning event=overhead words="too much" cpu_percent=1.01',
        f'{head}warning event=overhead words="too much" cpu_percent=1.61 suppressed=59',
        f'{head}warning event=overhead words="too much" cpu_percent=2.21 suppressed=59',
        f"{head}info event=overhead_over words=well cpu_percent=0.5 lasted_s=1310 suppressed=9",
        f'{head}warning event=overhead words="too much" cpu_percent=2',
    ]


def test_a_failed_start_is_one_line_with_the_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "agent.toml"
    path.write_text("[agent]\nrate = 5\nmax_samples = 0\n")

    assert main(["run", "--config", str(path)]) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("flamefleet-agent run: level=error event=start_failed words=")
    assert "did you mean rate_hz?" in line
    assert "max_samples" in line
    assert ' exit_code=2 remedy="Correct the configuration and start again."' in line


@pytest.mark.parametrize(
    ("remedy", "shown"),
    [("apt install it", "apt install it. `"), ("Do so.", "Do so. `"), ("", '="`')],
)
def test_a_remedy_and_the_pointer_to_check_are_two_sentences(
    remedy: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _tell("run", KernelError("The program cannot be compiled", "no headers", remedy))

    check = f"{called('flamefleet-agent')} check` looks"
    assert f"{shown}{check}" in capsys.readouterr().err
