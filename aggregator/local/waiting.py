"""Passes time while watching for the signals that end `flamefleet up`."""

import signal
import time
from collections.abc import Callable


class StopRequestedError(Exception):
    """A stop signal arrived; not a failure."""


class Waiting:
    """Stop signals are blocked and taken up here, so that nothing is interrupted half-way.

    Children unblock them (`launch.py`). A SIGHUP that is ignored (nohup) stays ignored.
    """

    def __init__(self, on_wake: Callable[[], None]) -> None:
        self._signals = {signal.SIGINT, signal.SIGTERM}
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            self._signals.add(signal.SIGHUP)
        signal.pthread_sigmask(signal.SIG_BLOCK, {*self._signals, signal.SIGCHLD})
        self.on_wake = on_wake

    def idle(self, seconds: float) -> None:
        """Pass `seconds`, or less when a child ends. Raises StopRequestedError."""
        received = signal.sigtimedwait({*self._signals, signal.SIGCHLD}, seconds)
        self.on_wake()
        if received is not None and received.si_signo in self._signals:
            raise StopRequestedError(signal.Signals(received.si_signo).name)

    def until(self, holds: Callable[[], bool], timeout_s: float, step_s: float = 0.2) -> bool:
        """Wait for `holds`; False after `timeout_s`. Raises StopRequestedError."""
        limit = time.monotonic() + timeout_s
        while not holds():
            if time.monotonic() > limit:
                return False
            self.idle(step_s)
        return True

    def requested_again(self) -> bool:
        """Whether another stop signal is waiting; it is taken up."""
        return signal.sigtimedwait(self._signals, 0) is not None
