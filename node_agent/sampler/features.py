"""What the sampler can do without for a time, so that the governor can turn it off and on.

A collector joins by a class like PythonFrames, in the list that `Governing` is given.
"""

from typing import Protocol

from node_agent.collectors.stacks import Interval


class Feature(Protocol):
    """`name` is shown to people: "19 Hz without NAME"."""

    name: str

    @property
    def is_on(self) -> bool: ...

    def cost_ns(self, interval: Interval) -> int:
        """CPU time, all CPUs, that it took in `interval`."""

    def turn(self, is_on: bool) -> None:
        """Raises KernelError when that cannot be done; everything is then as before."""


class ReadsPython(Protocol):
    """See node_agent.collectors.cpu.CpuCollector."""

    @property
    def reads_python(self) -> bool: ...

    def read_python(self, is_on: bool) -> None: ...


class PythonFrames:
    """Reading the frames of CPython programs. Without it samples show the interpreter's own, whole
    stacks, and their Python part ends as PythonEnd.OFF."""

    name = "Python frames"

    def __init__(self, collector: ReadsPython) -> None:
        self._collector = collector

    @property
    def is_on(self) -> bool:
        return self._collector.reads_python

    def cost_ns(self, interval: Interval) -> int:
        return interval.python_ns

    def turn(self, is_on: bool) -> None:
        self._collector.read_python(is_on)
