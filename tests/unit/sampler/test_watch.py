"""What the breaker remembers from run to run, with a kernel log of its own."""

import json
import os
from pathlib import Path

import pytest

from node_agent.breaker import KERNEL_LOG, KNOWN_BAD
from node_agent.kernel.errors import KernelLogError
from node_agent.sampler import watch
from node_agent.sampler.watch import Watch, state_folder

QUIET = b"<6>[    1.000000] Linux version 6.1\n<6>[   50.000000] eth0: link up\n"
REPORT = (
    b"<4>[   60.000000] WARNING: CPU: 1 PID: 1 at kernel/trace/trace.c:1 f+0x1/0x2\n"
    b"<4>[   60.000001]  perf_swevent_hrtimer+0x5f/0x130\n"
    b"<4>[   60.000002] ---[ end trace 0 ]---\n"
)


class Log:
    def __init__(self) -> None:
        self.text = QUIET
        self.reads = 0

    def read(self) -> bytes:
        self.reads += 1
        return self.text


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()
    monkeypatch.setattr(watch, "read_kernel_log", log.read)
    return log


def test_a_complaint_while_it_runs_opens_it_until_the_next_boot(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Watch(tmp_path)
    assert run.begin() is None
    assert run.look() is None
    log.text += REPORT
    opened = run.look()
    assert opened is not None
    assert opened.reason == KERNEL_LOG
    assert opened.words.startswith("WARNING: CPU: 1")
    assert "perf_swevent_hrtimer" in opened.words
    run.end()

    again = Watch(tmp_path).begin()
    assert again == opened
    monkeypatch.setattr(watch, "_boot_id", lambda: "the next boot")
    log.text = QUIET
    assert Watch(tmp_path).begin() is None


def test_a_complaint_from_before_the_run_is_not_its_own(log: Log, tmp_path: Path) -> None:
    log.text += REPORT
    run = Watch(tmp_path)
    assert run.begin() is None
    assert run.look() is None


def test_the_complaint_that_a_run_died_of_is_found_by_the_next(log: Log, tmp_path: Path) -> None:
    assert Watch(tmp_path).begin() is None  # and no end
    log.text += REPORT
    opened = Watch(tmp_path).begin()
    assert opened is not None
    assert opened.reason == KERNEL_LOG
    assert len(json.loads((tmp_path / "breaker.json").read_text())["crashes"]) == 1


def test_a_run_that_the_kernel_killed_for_want_of_memory_is_known_to_the_next(
    log: Log, tmp_path: Path
) -> None:
    run = Watch(tmp_path)
    assert run.begin() is None  # and no end
    assert not run.was_killed(os.getpid())
    log.text += (
        b"<3>[  900.000000] Memory cgroup out of memory: Killed process %d (flamefleet-pyth) "
        b"total-vm:31332kB, anon-rss:19328kB\n" % os.getpid()
    )

    assert run.was_killed(os.getpid())
    assert not run.was_killed(os.getpid() + 1)
    after = Watch(tmp_path)
    assert after.begin() is None
    assert after.is_heir_of_killed
    assert not after.was_killed(os.getpid())  # it was before this one


def test_a_reset_closes_it(log: Log, tmp_path: Path) -> None:
    run = Watch(tmp_path)
    run.begin()
    log.text += REPORT
    assert run.look() is not None
    run.end()
    run = Watch(tmp_path)
    assert run.begin(is_reset=True) is None
    assert run.look() is None
    run.end()
    assert Watch(tmp_path).begin() is None


def test_a_known_bad_kernel_needs_a_reset_once(
    log: Log,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(watch, "_bad_kernel", lambda: "it freezes")
    opened = Watch(tmp_path).begin()
    assert opened is not None
    assert (opened.reason, opened.words) == (KNOWN_BAD, "it freezes")
    for is_reset in (True, False):
        run = Watch(tmp_path)
        opened = run.begin(is_reset)
        assert capsys.readouterr().err == ""  # on a full disk the reset cannot be remembered
        assert opened is None
        run.end()


def test_a_log_that_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> bytes:
        raise KernelLogError("The kernel's log cannot be read", "not permitted", "")

    monkeypatch.setattr(watch, "read_kernel_log", refuse)
    run = Watch(tmp_path)
    assert run.begin() is None
    assert "go unnoticed" in run.log_trouble
    assert run.look() is None

    # nor does the next run, which may read it, take old complaints for that one's
    monkeypatch.setattr(watch, "read_kernel_log", lambda: QUIET + REPORT)
    assert Watch(tmp_path).begin() is None


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(
    log: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    run = Watch(tmp_path / "file" / "folder")
    assert run.begin() is None
    assert "cannot remember this run" in capsys.readouterr().err


def test_where_it_is_remembered(tmp_path: Path) -> None:
    from node_agent.config import load_config

    config = load_config(None, {}, {"spool_dir": tmp_path})
    assert state_folder(config, {}) == tmp_path / "sampler"
    assert state_folder(config, {"STATE_DIRECTORY": "/a:/b"}) == Path("/a")
