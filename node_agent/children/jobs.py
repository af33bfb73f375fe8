"""The jobs that a child was started for, in the child."""

import json
import math
import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple


class Request(NamedTuple):
    """`jobs` in the order of their importance, with `cost_s`, the CPU time that each probably
    takes; `limit_s` is that of the whole child, `done` the file that gets a byte for every job
    that is done."""

    jobs: list[dict[str, Any]]
    limit_s: float
    done: int | None

    def rationed(self) -> Iterator[dict[str, Any]]:
        """The jobs that there is CPU time for, the first in any case."""
        for number, job in enumerate(self.jobs):
            if number and time.process_time() + job.get("cost_s", 0.0) > self.limit_s:
                return
            yield job
            if self.done is not None:
                os.write(self.done, b".")


def read_request(arguments: list[str]) -> Request:
    """The request that the runner has put into a child's `arguments`."""
    jobs, *others = arguments
    limit_s, done = (float(others[0]), int(others[1])) if others else (math.inf, None)
    return Request(json.loads(jobs), limit_s, done)
