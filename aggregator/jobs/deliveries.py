"""`python -m aggregator.jobs.deliveries`: the worker of webhooks' deliveries.

Its configuration comes as one line of JSON on standard input, so that no password stands in a
command line or an environment. Each job is a thread: they wait for receivers and for Postgres.
"""

import ctypes
import os
import signal
import sys

import msgspec

from aggregator.config import CentreConfig

THREADS = 4
_PR_SET_PDEATHSIG = 1


def write_config(config: CentreConfig) -> bytes:
    """The line that `read_config` reads."""
    return msgspec.json.encode(config) + b"\n"


def read_config(line: bytes) -> CentreConfig:
    """The configuration of the worker that started this one."""
    return msgspec.json.decode(line, type=CentreConfig)


def run_deliveries(config: CentreConfig, log_level: str) -> None:
    """Deliver until SIGTERM."""
    from aggregator.celery_app import DELIVERIES, create_celery

    arguments = ["worker", "--loglevel", log_level, "--pool", "threads"]
    arguments += ["--concurrency", str(THREADS), "--hostname", "deliveries@%h"]
    create_celery(config, DELIVERIES).worker_main(arguments)


def main() -> None:
    # The worker that started this one may be killed.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGTERM), 0, 0, 0)
    line = sys.stdin.buffer.readline()
    if not line or os.getppid() != int(sys.argv[1]):
        return  # it was killed before
    run_deliveries(read_config(line), sys.argv[2])


if __name__ == "__main__":
    main()
