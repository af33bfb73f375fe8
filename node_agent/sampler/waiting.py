"""Sleep until there is something to do: a signal, a child's end, the kernel's call, or the time.

Every wake-up of a process whose code has left the CPU's caches costs about 0.2 ms, more than most
of what it then does. So the kernel program calls (see `wakeup_flags` in bpf/cpu.bpf.c) for what
cannot wait, and the sampler looks by itself only now and then.
"""

import ctypes
import os
import select
import signal
import time
from collections.abc import Iterable

_INFO_BYTES = 128  # struct signalfd_siginfo; the signal's number comes first
_SIGSET_BYTES = 128  # glibc's sigset_t: a bit a signal
_libc = ctypes.CDLL(None, use_errno=True)


class Waiter:
    """Takes up `stops`, which the calling thread has to have blocked, and SIGCHLD, which it blocks
    until `close`. `call_fd` is the ring buffer that the kernel calls by."""

    def __init__(self, stops: Iterable[signal.Signals], call_fd: int) -> None:
        self._stops = frozenset(stops)
        self._signals = self._stops | {signal.SIGCHLD}
        self._previous = signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        self._was_called = False
        self._epoll = select.epoll()
        self._signal_fd = _signalfd(self._signals)
        self._epoll.register(self._signal_fd, select.EPOLLIN)
        # Edges only: there is nearly always something in the ring that can wait.
        self._epoll.register(call_fd, select.EPOLLIN | select.EPOLLET)

    def wait(self, shortest_s: float, longest_s: float) -> bool:
        """Sleep for `longest_s`, or less when there is a call or a child has ended; but calls are
        answered only after `shortest_s`. True when a signal says to stop."""
        began = time.monotonic()
        first_s = max(0.0, min(shortest_s, longest_s))
        if self._was_called:  # probably there is a call soon: do not wake up only to hear it
            found = signal.sigtimedwait(self._signals, first_s)
            if found is not None:
                return found.si_signo in self._stops
        left_s = max(0.0, began + longest_s - time.monotonic())
        ready = [descriptor for descriptor, _ in self._epoll.poll(left_s)]
        if self._signal_fd in ready:
            return self._take_signal()
        self._was_called = bool(ready)
        left_s = began + first_s - time.monotonic()
        if not ready or left_s <= 0:
            return False
        found = signal.sigtimedwait(self._signals, left_s)
        return found is not None and found.si_signo in self._stops

    def close(self) -> None:
        self._epoll.close()
        os.close(self._signal_fd)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._previous)

    def _take_signal(self) -> bool:
        try:
            info = os.read(self._signal_fd, _INFO_BYTES)
        except BlockingIOError:
            return False
        return int.from_bytes(info[:4], "little") in self._stops


def _signalfd(signals: Iterable[signal.Signals]) -> int:
    mask = sum(1 << number - 1 for number in signals)
    descriptor: int = _libc.signalfd(
        -1, mask.to_bytes(_SIGSET_BYTES, "little"), os.O_NONBLOCK | os.O_CLOEXEC
    )
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"signals cannot be waited for: {os.strerror(number)}")
    return descriptor
