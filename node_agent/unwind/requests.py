"""Requests for the unwind rows of a file, and jobs: requests that a child works on."""

import os
from typing import NamedTuple

from node_agent.symbols.modules import Source

# CPU time of a file: mostly by its code, up to what the largest known ones take.
COST_S, COST_S_PER_BYTE, MAX_COST_S = 0.005, 0.02e-6, 1.0


class Request(NamedTuple):
    """The rows of a build: where it is mapped, or a descriptor of its file."""

    build_id: bytes
    source: Source | int
    cost_s: float


class Job(NamedTuple):
    """A request under way: what the child reads, a file in memory that it writes."""

    request: Request
    input: int
    output: int
    is_image: bool


def cost_s(source: Source | int) -> float:
    """CPU seconds that the rows of a file probably take."""
    if isinstance(source, int):
        size = os.fstat(source).st_size
    else:
        size = source.mapping.end - source.mapping.start
    return min(COST_S + COST_S_PER_BYTE * size, MAX_COST_S)


def again_of(job: Job) -> Request:
    """The request of a job that was not done."""
    os.close(job.output)
    if job.is_image:
        os.close(job.input)  # of which only the source knows what it is
        return job.request
    return job.request._replace(source=job.input)


def close_source(source: Source | int) -> None:
    """Close the file that was handed over, where it was one."""
    if isinstance(source, int):
        os.close(source)
