"""`python -m aggregator.jobs.deliveries`: the worker of webhooks' deliveries.

Its configuration comes as one line of JSON on standard input, so that no password stands in a
command line or an environment. Each job is a thread: they wait for receivers and for Postgres.
"""

import ctypes
import json
import os
import signal
import sys
from dataclasses import asdict

from aggregator.config import CentreConfig, Retention, Webhook

THREADS = 4
_PR_SET_PDEATHSIG = 1


def write_config(config: CentreConfig) -> bytes:
    """The line that `read_config` reads."""
    return json.dumps(asdict(config)).encode() + b"\n"


def read_config(line: bytes) -> CentreConfig:
    """The configuration of the worker that started this one."""
    values = json.loads(line)
    values["webhooks"] = tuple(Webhook(**each) for each in values["webhooks"])
    values["allowed_hosts"] = tuple(values["allowed_hosts"])
    values["retention"] = Retention(**values["retention"])
    return CentreConfig(**values)


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
