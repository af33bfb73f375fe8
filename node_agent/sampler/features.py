"""What the sampler can do without for a time, so that the governor can turn it off and on.

A collector joins by a class like PythonFrames, in the list that `Governing` is given.
"""

from typing import Protocol

from wire.schema import Overhead


class Feature(Protocol):
    """`name` is shown to people: "19 Hz without NAME"."""

    name: str

    @property
    def is_on(self) -> bool: ...

    def cost_ns(self, overhead: Overhead) -> int:
        """CPU time, all CPUs, kernel and user space, that `overhead` has of it."""

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

    def cost_ns(self, overhead: Overhead) -> int:
        return overhead.python_kernel_cpu_ns + overhead.python_sampler_cpu_ns

    def turn(self, is_on: bool) -> None:
        self._collector.read_python(is_on)
