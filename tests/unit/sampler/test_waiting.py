"""The sampler's sleep: woken by signals, by the end of a child, by the kernel's call."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from node_agent.sampler.waiting import Waiter

LONG_S = 30.0  # a wait that lasts as long has not been woken
STOPS = (signal.SIGTERM, signal.SIGINT)
CHILD_ENDS = """
import os, subprocess, sys, time
from node_agent.sampler.waiting import Waiter
waiter = Waiter((), os.pipe()[0])
child = subprocess.Popen(["true"])
began = time.monotonic()
waiter.wait(120, 120)
sys.exit(time.monotonic() - began >= 60)
"""


@pytest.fixture
def call() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe in the place of the ring buffer: writing to it is a call."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.fixture
def waiter(call: tuple[int, int]) -> Iterator[Waiter]:
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    with closing(Waiter(STOPS, call[0])) as made:
        yield made
    signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def took_s(waiter: Waiter, shortest_s: float, longest_s: float) -> float:
    began = time.monotonic()
    assert not waiter.wait(shortest_s, longest_s)
    return time.monotonic() - began


@pytest.mark.parametrize("stop", STOPS)
def test_a_stop_ends_the_wait(waiter: Waiter, stop: signal.Signals) -> None:
    signal.pthread_kill(threading.get_ident(), stop)
    assert waiter.wait(LONG_S, LONG_S)
    assert not waiter.wait(0, 0)  # taken up once


def test_the_end_of_a_child_ends_the_wait_at_once() -> None:
    # In a process of one thread, as the sampler is: numpy's, where another test has imported it,
    # takes SIGCHLD half of the time, and it is gone.
    subprocess.run([sys.executable, "-c", CHILD_ENDS], check=True)


def test_nothing_happens_for_as_long_as_it_may(waiter: Waiter) -> None:
    assert took_s(waiter, 0.05, 0.1) >= 0.1
    assert not waiter.wait(0.5, -1)  # the time is over already


def test_a_call_is_answered_but_not_too_soon(waiter: Waiter, call: tuple[int, int]) -> None:
    os.write(call[1], b"x")
    assert 0.2 <= took_s(waiter, 0.2, LONG_S) < LONG_S / 2
    os.write(call[1], b"x")
    assert 0.2 <= took_s(waiter, 0.2, LONG_S) < LONG_S / 2  # when one is expected, too


def test_what_was_there_before_calls_only_once(waiter: Waiter, call: tuple[int, int]) -> None:
    os.write(call[1], b"x")
    assert took_s(waiter, 0, LONG_S) < LONG_S / 2
    assert took_s(waiter, 0, 0.1) >= 0.1  # it is still there, but nobody called again
    os.write(call[1], b"x")
    assert took_s(waiter, 0, LONG_S) < LONG_S / 2


def test_a_stop_is_heard_before_a_call_is_answered(waiter: Waiter, call: tuple[int, int]) -> None:
    os.write(call[1], b"x")
    # To this thread: any other that does not block it would take it, and end the tests.
    timer = threading.Timer(0.1, signal.pthread_kill, (threading.get_ident(), signal.SIGTERM))
    timer.start()
    assert waiter.wait(LONG_S, LONG_S)
    timer.join()


def test_signals_are_as_before_afterwards(call: tuple[int, int]) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    Waiter(STOPS, call[0]).close()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
