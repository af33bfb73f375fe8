"""CPU time that Python frames take in the sampler: their share of its cost."""

import time


class PythonTime:
    """`ns` adds up, since the start, what the calling thread spends inside `with`. Not to be
    nested. Entering and leaving reads a clock of the kernel, 0.9 us together: put it around what
    takes longer, or happens seldom."""

    __slots__ = ("_began_ns", "ns")

    def __init__(self) -> None:
        self.ns = 0
        self._began_ns = 0

    def __enter__(self) -> None:
        self._began_ns = time.thread_time_ns()

    def __exit__(self, *_: object) -> None:
        self.ns += time.thread_time_ns() - self._began_ns
