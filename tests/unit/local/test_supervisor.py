"""The policy of restarts, and the words for how a part ended."""

import os

import pytest

from aggregator.local.supervisor import (
    FIRST_DELAY_S,
    MOST_DELAY_S,
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
