"""Finds the CPython programs among the sampled processes and tells the kernel program of them.

A process is looked at when its first stack comes, and whenever its mappings were read anew: does a
file among them have the name of a CPython? The file is read once for each build, in a child
(inspector.py); the sampler reads no other process's memory, since that could be made to hang.
"""

import os
import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

from node_agent.capabilities import KERNEL_PROGRAMS, OTHER_PROCESSES, using
from node_agent.collectors.stacks import Interval, ProcessKey, PythonEnd, RawStack
from node_agent.cpython.errors import PythonError
from node_agent.cpython.inspector import Inspector
from node_agent.cpython.interpreter import Interpreter
from node_agent.cpython.mapped import file_name, find_interpreters
from node_agent.cpython.offsets import find_offsets
from node_agent.cpython.records import make_layout, make_process
from node_agent.cpython.spent import PythonTime
from node_agent.cpython.structs import MAX_PYTHON_LAYOUTS, PythonLayoutC, PythonProcessC
from node_agent.generations import GenerationCache
from node_agent.kernel.structs import PYTHON_END_MASK, PYTHON_END_SHIFT
from node_agent.processes.address_space import AddressSpace
from node_agent.processes.errors import FileUnavailableError, ProcessError
from node_agent.processes.files import open_mapped
from node_agent.processes.mappings import Mapping, Mappings, check_start, read_process_file
from node_agent.symbols.modules import ModuleRegistry
from wire.fit import fit_text
from wire.limits import MAX_LABEL_BYTES

_MAX_PROCESSES = 8192
_MAX_REASONS = 20
_PARENT = re.compile(rb"\) \S (\d+)")


class Maps(Protocol):
    """See node_agent.cpython.maps.PythonMaps."""

    def put_layout(self, number: int, layout: PythonLayoutC) -> None: ...
    def put_process(self, tgid: int, process: PythonProcessC) -> bool: ...
    def drop_process(self, tgid: int) -> None: ...


class _Candidate(NamedTuple):
    """A process that has a file of a CPython mapped."""

    key: ProcessKey
    mapping: Mapping


class _Build(NamedTuple):
    """An interpreter that can be read: its number in the map of layouts."""

    number: int
    interpreter: Interpreter
    runtime_interpreters: int  # from _PyRuntime on


class PythonPrograms:
    """`note` every stack, `step` now and then. `counts` tells how many processes became `known`, or
    why not; `refused` the words by file name. `spent` takes up the CPU time of that, but for what
    `note` does for a stack of a process that was looked at."""

    def __init__(
        self,
        maps: Maps,
        registry: ModuleRegistry,
        space: Callable[[ProcessKey], AddressSpace],
        inspector: Inspector | None = None,
        spent: PythonTime | None = None,
    ) -> None:
        self.counts: dict[str, int] = {}
        self.refused: dict[str, str] = {}
        self._interval: dict[str, Any] = {}
        self._maps = maps
        self._registry = registry
        self._contain = registry.faults.contain
        self._space = space
        self._inspector = inspector or Inspector()
        self._spent = spent or PythonTime()
        self._builds: dict[int, _Build | None] = {}  # by module hash; None: not to be read
        self._asked: dict[int, list[_Candidate]] = {}
        self._names: dict[int, str] = {}
        self._known: dict[int, tuple[ProcessKey, int]] = {}  # by tgid; with the salt
        self._settled: GenerationCache[ProcessKey, bool] = GenerationCache(_MAX_PROCESSES)
        self._looked_at: GenerationCache[ProcessKey, int] = GenerationCache(_MAX_PROCESSES)

    def note(self, raw: RawStack) -> None:
        """See whether the stack's process runs a CPython. Reads /proc: needs OTHER_PROCESSES."""
        key = raw.process
        if raw.is_kernel_thread or self._settled.get(key):
            return
        mappings = self._space(key).mappings  # read when the stack was made sense of
        if mappings is None or mappings.number == self._looked_at.get(key):
            return
        self._looked_at.put(key, mappings.number)
        with self._spent:
            self._contain("python", key, partial(self._look, key, mappings))

    def step(self) -> None:
        """Take what the child found out; never waits."""
        for build, answer in self._inspector.step():
            candidates = self._asked.pop(build, [])
            work: partial[Any] = partial(self._accept, build, answer)
            self._builds[build] = self._contain("interpreter", ("build", build), work)
            with self._spent, using(*OTHER_PROCESSES):
                for candidate in candidates:
                    work = partial(self._examine, candidate)
                    self._contain("python", candidate.key, work)

    def end_interval(self, interval: Interval) -> None:
        """Note how the Python parts of the interval's samples ended, and what they cost."""
        ends: dict[str, int] = {}
        with self._spent:
            for key, count in interval.counts.items():
                end = (key.flags & PYTHON_END_MASK) >> PYTHON_END_SHIFT
                if end:
                    word = PythonEnd(end).name.lower()
                    ends[word] = ends.get(word, 0) + count
        self._interval = {
            "ends": ends,
            "python_samples": interval.python_samples,
            "python_ns": interval.python_ns,
        }

    def status(self) -> dict[str, Any]:
        """For the status file: the last interval, processes, and refused interpreters in words."""
        return {**self._interval, "processes": self.counts, "refused": self.refused}

    def sweep(self) -> None:
        """Forget processes that have ended. Reads /proc."""
        ended = []
        with using(*OTHER_PROCESSES):  # /proc may hide other users' processes
            for tgid, (key, _) in self._known.items():
                try:
                    check_start(tgid, key.start_ns)
                except ProcessError:
                    ended.append(tgid)
        with using(*KERNEL_PROGRAMS):
            for tgid in ended:
                del self._known[tgid]
                self._maps.drop_process(tgid)
        self._settled.rotate()
        self._looked_at.rotate()

    @property
    def is_settled(self) -> bool:
        """Whether every interpreter that was found has been read."""
        return not self._asked

    def close(self) -> None:
        """End a running child."""
        self._inspector.close()

    def _look(self, key: ProcessKey, mappings: Mappings) -> None:
        for mapping in find_interpreters(mappings):
            self._examine(_Candidate(key, mapping))

    def _examine(self, candidate: _Candidate) -> None:
        build = self._registry.native_module(candidate.key.tgid, candidate.mapping)
        if build is None:
            return
        if build in self._builds:
            found = self._builds[build]
            if found is not None:
                self._publish(candidate, found)
        elif build in self._asked:
            if candidate not in self._asked[build]:
                self._asked[build].append(candidate)
        else:
            self._ask(build, candidate)

    def _ask(self, build: int, candidate: _Candidate) -> None:
        name = file_name(candidate.mapping)
        try:
            descriptor = open_mapped(candidate.key.tgid, candidate.mapping)
        except FileUnavailableError as error:
            self._count(error.reason)
            return
        if self._inspector.request(build, descriptor, name):
            self._asked[build] = [candidate]
            self._names[build] = name

    def _accept(self, build: int, answer: Interpreter | str) -> _Build | None:
        """Give a build its layout. None, said in `refused`, when its frames can't be read."""
        name = self._names.pop(build, "")
        try:
            if isinstance(answer, str):
                raise PythonError(answer)
            offsets = find_offsets(answer.version, answer.debug_offsets)
            layout = make_layout(offsets, answer)
            number = sum(1 for known in self._builds.values() if known is not None)
            if number >= MAX_PYTHON_LAYOUTS:
                raise PythonError(f"more than {MAX_PYTHON_LAYOUTS} builds of CPython run here")
            with using(*KERNEL_PROGRAMS):
                self._maps.put_layout(number, layout)
        except PythonError as error:
            self._refuse(name, error)
            return None
        return _Build(number, answer, offsets.runtime_interpreters)

    def _publish(self, candidate: _Candidate, build: _Build) -> None:
        key = candidate.key
        if self._settled.get(key):
            return
        bias = build.interpreter.bias(candidate.mapping.start, candidate.mapping.offset)
        if bias is None:
            return
        salt = self._find_salt(key)
        interpreters = build.interpreter.runtime + bias + build.runtime_interpreters
        record = make_process(key, bias, interpreters, salt, build.number)
        try:
            with using(*KERNEL_PROGRAMS):
                if not self._maps.put_process(key.tgid, record):
                    self._count("no_room")
                    return
        except PythonError as error:
            self._refuse(file_name(candidate.mapping), error)
            return
        self._known[key.tgid] = key, salt
        self._settled.put(key, True)
        self._count("known")

    def _find_salt(self, key: ProcessKey) -> int:
        """That of the process that this one was forked from, so that both have the same ids; a new
        one where it has run another program since."""
        try:
            stat = read_process_file(key.tgid, "stat")
            parent = self._known.get(int(_PARENT.findall(stat)[-1]))
        except (OSError, IndexError, ValueError):
            parent = None
        if parent is not None and parent[0].exec_id == key.exec_id:
            return parent[1]
        return int.from_bytes(os.urandom(8), "little")

    def _refuse(self, name: str, error: PythonError) -> None:
        self._count("refused")
        if len(self.refused) < _MAX_REASONS:
            self.refused[fit_text(name, MAX_LABEL_BYTES)] = str(error)

    def _count(self, reason: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1
