"""How a collector comes by its running programs: from the process before it, or loaded anew."""

import ctypes
import os
import time
from _blake2 import blake2b

from node_agent.collectors.inherited import MAX_ABSENCE_S, Inheritance, shape
from node_agent.collectors.map_sizes import MapSizes, plan_map_sizes
from node_agent.collectors.running import (
    CORE_MAPS,
    EVEN,
    EXCLUSIONS,
    LAYOUTS,
    MAPS,
    NAMES,
    ODD,
    PROCESSES,
    PROGRAM,
    PYTHON,
    STACKS,
    Running,
    open_running,
    resume,
)
from node_agent.cpython.structs import (
    MAX_PYTHON_LAYOUTS,
    MAX_PYTHON_NAMES,
    MAX_PYTHON_PROCESSES,
    MIN_PYTHON_NAMES,
)
from node_agent.kernel.chain import load_program
from node_agent.kernel.cpus import online_cpus, possible_cpus
from node_agent.kernel.descriptor_store import DescriptorStore
from node_agent.kernel.errors import KernelError
from node_agent.kernel.exclusions import Exclusions
from node_agent.kernel.libbpf import OBJECTS
from node_agent.kernel.namespaces import pid_namespace_setting
from node_agent.kernel.program import Program
from node_agent.kernel.structs import (
    MAX_KNOWN_PROCESSES,
    CountersC,
    SampleKeyC,
    SettingsC,
    StackEventC,
)

PYTHON_NAMES_A_CPU = 2_048


class Beginning:
    """What programs are made with, and where they are kept for the next process (`store`).

    After `begin`: `mode` is the one that worked, `mode_reasons` why better ones did not;
    `rate_hz` what is sampled at; `resumed_s` how old the interval was that it went on with.
    """

    def __init__(
        self,
        settings: SettingsC,
        exclusions: Exclusions,
        inheritance: Inheritance,
        store: DescriptorStore | None,
        mode: str,
        rate_hz: int,
    ) -> None:
        self.mode = mode
        self.mode_reasons: dict[str, str] = {}
        self.rate_hz = rate_hz
        self.resumed_s: float | None = None
        self.sizes = MapSizes(0, 0, 0)
        self._settings = settings
        self._exclusions = exclusions
        self._inheritance = inheritance
        self._store = store
        self._asked_hz = rate_hz

    def begin(self, rate_hz: int, interval_s: float, max_samples: int) -> Running:
        """Raises KernelError, with nothing left loaded."""
        self.rate_hz = rate_hz
        self._settings.pid_namespace = pid_namespace_setting()
        self._exclusions.configure(self._settings)
        self.sizes = plan_map_sizes(
            self.rate_hz,
            len(possible_cpus()),
            interval_s,
            max_samples,
            ctypes.sizeof(SampleKeyC),
            ctypes.sizeof(StackEventC) + ctypes.sizeof(CountersC),
        )
        running = self._resume()
        if running is None:
            running = self._start_anew()
            self._inheritance.begin(running, self.rate_hz)
        return running

    def keep(self, running: Running, rate_hz: int) -> None:
        """Leave what samples at `rate_hz` for the process that comes after this one."""
        if self._store is not None:
            self._store.keep(self._layout(), running.descriptors(self.mode, rate_hz))

    def discard(self) -> None:
        """Leave nothing: what is kept would live on."""
        if self._store is not None:
            self._store.discard()

    def _start_anew(self) -> Running:
        entries = self.sizes.count_entries
        program = Program(
            OBJECTS / "cpu.bpf.o",
            (PROGRAM,),
            MAPS,
            self._settings,
            {
                EVEN: entries,
                ODD: entries,
                STACKS: self.sizes.ring_bytes,
                EXCLUSIONS: self._exclusions.max_entries,
                PROCESSES: MAX_KNOWN_PROCESSES if self._settings.unwind else 1,
                PYTHON: MAX_PYTHON_PROCESSES if self._settings.python else 1,
                LAYOUTS: MAX_PYTHON_LAYOUTS if self._settings.python else 1,
                NAMES: _name_entries() if self._settings.python else MIN_PYTHON_NAMES,
            },
            CORE_MAPS,
        )
        self.mode, loaded, self.mode_reasons = load_program(program, self.mode)
        try:
            running = open_running(loaded, self.sizes)
        except BaseException:
            loaded.close()
            raise
        try:
            self._exclusions.enforce(loaded.maps[EXCLUSIONS])
            running.control.beat()
            running.clock.start(online_cpus(), self.rate_hz)
        except BaseException:
            running.close()
            raise
        return running

    def _resume(self) -> Running | None:
        """What the process before this one left running, if it was made like this one."""
        if self._store is None:
            return None
        self._inheritance.find(self._store.others(self._layout()))
        descriptors = self._store.take(self._layout())
        try:
            taken = resume(descriptors, self.sizes)
        except KernelError:
            taken = None
        age_s = 0.0
        if taken is not None:
            mode, rate_hz, running = taken
            age_s = (time.monotonic_ns() - running.interval.start_monotonic_ns) / 1e9
            if age_s > MAX_ABSENCE_S:
                running.unmap()
        if taken is None or age_s > MAX_ABSENCE_S:
            for fd in descriptors.values():
                os.close(fd)
            self._store.discard()
            return None
        self.mode, self.resumed_s, self.rate_hz = mode, age_s, rate_hz
        self._exclusions.enforce(running.loaded.maps[EXCLUSIONS])
        running.control.beat()
        return running

    def _layout(self) -> str:
        """What has to be the same for another process to go on with these maps and events."""
        made_of = f"{self._asked_hz} {self.sizes} {self._exclusions.config}".encode()
        path = OBJECTS / "cpu.bpf.o"
        content = path.read_bytes() if path.exists() else b""
        digest = blake2b(content + bytes(self._settings) + made_of, digest_size=8).hexdigest()
        return f"{digest}-{shape()}"


def _name_entries() -> int:
    """More CPUs run more code at a time."""
    return min(PYTHON_NAMES_A_CPU * len(possible_cpus()), MAX_PYTHON_NAMES)
