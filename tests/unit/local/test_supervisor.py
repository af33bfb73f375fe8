"""The policy of restarts, and the words for how and why a part ended."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aggregator.local.errors import StartError
from aggregator.local.process import Command, wait_for_answer
from aggregator.local.supervisor import (
    FIRST_DELAY_S,
    MOST_DELAY_S,
    Supervisor,
    describe_exit,
    restart_delay_s,
    start_ticks,
)


def test_the_delay_doubles_up_to_its_limit() -> None:
    delays = [restart_delay_s(failures) for failures in range(1, 40)]
    assert delays[:3] == [FIRST_DELAY_S, FIRST_DELAY_S * 2, FIRST_DELAY_S * 4]
    assert delays == sorted(delays)
    assert delays[-1] == MOST_DELAY_S


@pytest.mark.parametrize(
    ("status", "words"), [(0, "ended with status 0"), (3, "ended with status 3"), (-9, "SIGKILL")]
)
def test_an_end_is_told_in_words(status: int, words: str) -> None:
    assert words in describe_exit(status)


def test_a_process_is_known_by_its_start() -> None:
    ticks = start_ticks(os.getpid())
    assert ticks is not None
    assert ticks > 0
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert start_ticks(pid) is None, "a zombie runs no more"
    os.waitpid(pid, 0)
    assert start_ticks(pid) is None


def part(script: str, name: str = "sampler") -> Command:
    return Command(name, (sys.executable, "-I", "-c", script))


def run_until(supervisor: Supervisor, holds: Callable[[], bool]) -> None:
    limit = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < limit
        supervisor.tick()
        time.sleep(0.02)


@pytest.mark.parametrize("name", ["sampler", "shipper", "aggregator", "worker", "postgres"])
def test_a_death_is_told_with_its_reason_and_the_log(tmp_path: Path, name: str) -> None:
    # GIVEN a log with an older reason
    log = tmp_path / f"{name}.log"
    log.write_text("ValueError: of an earlier run\n")
    said: list[str] = []
    supervisor = Supervisor(tmp_path, tmp_path / "processes.json", said.append)
    # WHEN a part dies, and dies again for the same reason
    supervisor.add(part("import sys; sys.exit('flamefleet: the port is taken')", name))
    run_until(supervisor, lambda: sum("ended with" in line for line in said) >= 2)
    supervisor.stop(name)
    # THEN its own reason and its log are told, once
    deaths = [line for line in said if "ended with status 1" in line]
    assert "the port is taken" in deaths[0]
    assert str(log) in deaths[0]
    assert "for the same reason" in deaths[1]
    assert "earlier run" not in "".join(said)


def test_a_death_without_a_word_says_so_and_names_the_log(tmp_path: Path) -> None:
    said: list[str] = []
    supervisor = Supervisor(tmp_path, tmp_path / "processes.json", said.append)
    supervisor.add(part("import os; os._exit(4)"))
    run_until(supervisor, lambda: bool(said))
    supervisor.stop("sampler")
    assert "ended with status 4: it logged no reason" in said[0]
    assert str(tmp_path / "sampler.log") in said[0]


def test_a_start_that_fails_is_told_with_the_end_of_the_log(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, tmp_path / "processes.json", lambda line: None)
    process = supervisor.add(part("import sys; sys.exit('FATAL: no room')", "postgres"))
    with (
        pytest.raises(StartError, match="no room"),
        supervisor.explained("postgres"),
    ):
        wait_for_answer(process, "Postgres", lambda: False, 120)
    supervisor.stop("postgres")


def test_when_nothing_is_to_be_seen_each_parts_last_error_is_told(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, tmp_path / "processes.json", lambda line: None)
    for name, words in (("aggregator", "TypeError: no such"), ("shipper", "level=info words=x")):
        supervisor.add(part(f"import time; print({words!r}, flush=True); time.sleep(600)", name))
    run_until(supervisor, lambda: (tmp_path / "aggregator.log").stat().st_size > 0)
    run_until(supervisor, lambda: (tmp_path / "shipper.log").stat().st_size > 0)
    assert supervisor.troubles() == f"  aggregator: TypeError: no such\n  logs: {tmp_path}"
    supervisor.stop("aggregator")
    assert "no part has logged an error" in supervisor.troubles()
    supervisor.stop("shipper")
