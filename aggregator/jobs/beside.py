"""Runs the worker of deliveries beside a worker, and starts it again when it ends."""

import logging
import os
import subprocess
import sys
import threading
import time
from typing import Any

from celery import bootsteps

from aggregator.config import CentreConfig
from aggregator.jobs.deliveries import write_config
from aggregator.local.supervisor import STEADY_S, describe_exit, restart_delay_s

STOP_WAIT_S = 20.0  # a message under way has less; what is killed is sent again with the same id

_log = logging.getLogger(__name__)


class _Beside(bootsteps.StartStopStep):  # type: ignore[misc]  # celery has no types
    """A step of Celery's worker: starts and stops with it."""

    config: CentreConfig
    requires = ("celery.worker.components:Pool",)  # whose processes are forked before a thread runs

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        # One thread starts it each time: the kernel ends it with the thread that did.
        self._thread = threading.Thread(target=self._keep, name="deliveries", daemon=True)

    def start(self, parent: Any) -> None:
        self._log_level = logging.getLevelName(parent.loglevel or logging.INFO)
        self._thread.start()

    def stop(self, parent: Any) -> None:
        self._stopping.set()
        with self._lock:
            process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
        self._thread.join()

    terminate = stop

    def _keep(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            began_s = time.monotonic()
            status = self._run()
            if self._stopping.is_set():
                return
            failures = 1 if time.monotonic() - began_s > STEADY_S else failures + 1
            wait_s = restart_delay_s(failures)
            words = describe_exit(status)
            _log.error("the worker of deliveries %s; starting it again in %.1f s", words, wait_s)
            self._stopping.wait(wait_s)

    def _run(self) -> int:
        isolated = ["-I"] if sys.flags.isolated else []
        argv = [sys.executable, *isolated, "-m", "aggregator.jobs.deliveries"]
        argv += [str(os.getpid()), self._log_level]
        with self._lock:
            if self._stopping.is_set():
                return 0
            self._process = subprocess.Popen(argv, stdin=subprocess.PIPE)
        assert self._process.stdin is not None
        try:
            with self._process.stdin as told:
                told.write(write_config(self.config))
        except BrokenPipeError:
            pass  # it has ended already; its status says how
        return self._process.wait()


def deliveries_beside(config: CentreConfig) -> type[_Beside]:
    """The step for a worker with `config`."""
    return type("DeliveriesBeside", (_Beside,), {"config": config})
