"""Symbol extracts on demand, only for modules seen in this run.

One child at a time makes several extracts, because starting it costs more than most of them. What
the children use counts as the agent's overhead, so it is rationed: a burst at the start, when
everything is new, then a small share of the host.
"""

import json
import os
import signal
import time
from collections import deque
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from node_agent.capabilities import KERNEL_SYMBOLS, OTHER_PROCESSES, using
from node_agent.errors import SpoolError
from node_agent.kernel.cpus import online_cpus
from node_agent.processes.errors import FileUnavailableError
from node_agent.processes.files import open_mapped
from node_agent.spool import Spool
from node_agent.symbols.children import child_command, end_child
from node_agent.symbols.errors import ChildError, SymbolError
from node_agent.symbols.extract import refusal
from node_agent.symbols.kallsyms import KALLSYMS, parse_modules
from node_agent.symbols.modules import ModuleRegistry
from wire.schema import ModuleKind

MAX_QUEUED = 256
TIMEOUT_S = 180.0
MAX_AT_ONCE = 16  # extracts a child
BURST_CPU_S = 0.4
CPU_SHARE = 0.0015  # of the online CPUs: with the burst half a percent of two, in a minute
_CHILD = "node_agent.symbols.extract"


class _Job(NamedTuple):
    """A request and the spool file that its extract is written to."""

    request: dict[str, Any]
    output: AbstractContextManager[int]


class _Child(NamedTuple):
    """The running child and what it makes."""

    pid: int
    jobs: list[_Job]
    started_at: float


class Extractor:
    """Makes extracts of the modules in `registry` into `spool`. `counts` tells what became of the
    requests: `made`, `failed` (refused with a reason), `unknown`, `queue_full`, `no_room`."""

    def __init__(self, spool: Spool, registry: ModuleRegistry, node: str) -> None:
        self.counts: dict[str, int] = {}
        self.last_error = ""
        self._spool = spool
        self._registry = registry
        self._node = node
        self._queue: deque[dict[str, Any]] = deque()
        self._child: _Child | None = None
        self._credit_s = BURST_CPU_S
        self._credited_at = time.monotonic()

    def request(self, module_kind: int, build_id: bytes) -> bool:
        """Ask for an extract. False, counted, when this run has not seen the module."""
        hash64 = self._registry.find(module_kind, build_id)
        if hash64 is None:
            self._count("unknown")
            return False
        if len(self._queue) >= MAX_QUEUED:
            self._count("queue_full")
            return False
        request = {
            "node": self._node,
            "module_kind": int(module_kind),
            "build_id": build_id.hex(),
            "name": self._registry.modules[hash64].name,
        }
        if not self._is_asked(request):
            self._queue.append(request)
        return True

    def _is_asked(self, request: dict[str, Any]) -> bool:
        running = self._child.jobs if self._child is not None else []
        key = request["module_kind"], request["build_id"]
        return any(
            (other["module_kind"], other["build_id"]) == key
            for other in [*self._queue, *(job.request for job in running)]
        )

    @property
    def pending(self) -> int:
        """Requests not finished yet."""
        return len(self._queue) + (len(self._child.jobs) if self._child is not None else 0)

    def step(self) -> None:
        """Collect a child that has ended, start the next; never waits."""
        if self._child is not None and not self._collect(self._child):
            return
        if self._queue and self._has_credit():
            self._begin()

    def close(self) -> None:
        """End a running child; its extracts will be asked for again."""
        child, self._child = self._child, None
        if child is not None:
            end_child(child.pid)
            for job in child.jobs:
                _discard(job.output)

    def _has_credit(self) -> bool:
        now = time.monotonic()
        earned_s = (now - self._credited_at) * CPU_SHARE * len(online_cpus())
        self._credit_s = min(BURST_CPU_S, self._credit_s + earned_s)
        self._credited_at = now
        return self._credit_s > 0

    def _begin(self) -> None:
        jobs: list[_Job] = []
        descriptors: list[int] = []
        while self._queue and len(jobs) < MAX_AT_ONCE:
            alone = bool(self._queue[0].get("alone"))
            if alone and jobs:
                break
            job = self._prepare(self._queue.popleft(), descriptors)
            if job is not None:
                jobs.append(job)
            if alone:
                break
        try:
            if jobs:
                self._child = _Child(_spawn(jobs, descriptors), jobs, time.monotonic())
        except OSError as error:
            for job in jobs:
                _discard(job.output)
                self._refuse(job.request, f"no child could be started: {error.strerror}")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _prepare(self, request: dict[str, Any], descriptors: list[int]) -> _Job | None:
        """Open what a request reads from (added to `descriptors`) and writes to."""
        try:
            source = self._open(request)
        except (SymbolError, FileUnavailableError) as error:
            self._refuse(request, str(error))
            return None
        output = self._spool.writing_extract(
            bytes.fromhex(request["build_id"]), request["module_kind"]
        )
        try:
            target = output.__enter__()
        except SpoolError as error:
            os.close(source)
            self._count("no_room")
            self.last_error = str(error)
            return None
        descriptors.append(source)
        request.update(input=source, output=target)
        return _Job(request, output)

    def _open(self, request: dict[str, Any]) -> int:
        """A descriptor of what holds the symbols; completes the request of a kernel module."""
        kind = request["module_kind"]
        if kind in (ModuleKind.KERNEL, ModuleKind.KERNEL_MODULE):
            with using(*KERNEL_SYMBOLS):
                if kind == ModuleKind.KERNEL_MODULE:
                    request.update(_load_address(request["name"]))
                return os.open(KALLSYMS, os.O_RDONLY | os.O_CLOEXEC)
        hash64 = self._registry.find(kind, bytes.fromhex(request["build_id"]))
        source = self._registry.sources.get(hash64) if hash64 is not None else None
        if source is None:
            raise SymbolError("gone: no file with this build id is at hand")
        with using(*OTHER_PROCESSES):
            return open_mapped(source.tgid, source.mapping)

    def _collect(self, child: _Child) -> bool:
        """Whether the child has ended; its output is then stored, tried again or refused."""
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid == 0:
            if time.monotonic() - child.started_at > TIMEOUT_S:
                with suppress(PermissionError):  # its own alarm ends it
                    os.kill(child.pid, signal.SIGKILL)
            return False
        self._child = None
        self._credit_s -= usage.ru_utime + usage.ru_stime
        code = os.waitstatus_to_exitcode(status)
        for job in child.jobs:
            if code == 0:
                self._store(job)
                continue
            _discard(job.output)
            if len(child.jobs) > 1:
                # One of them was too much for it: each gets a child of its own.
                self._queue.append({**job.request, "alone": True})
                continue
            how = f"signal {-code}" if code < 0 else f"exit status {code}"
            self._refuse(job.request, f"the reader of its symbols ended with {how}")
        return True

    def _store(self, job: _Job) -> None:
        try:
            job.output.__exit__(None, None, None)
            self._count("made")
        except SpoolError as error:
            self._count("no_room")
            self.last_error = str(error)

    def _refuse(self, request: dict[str, Any], reason: str) -> None:
        self._count("failed")
        self.last_error = f"{request['name']}: {reason}"
        try:
            self._spool.put_extract(
                refusal(request, reason),
                bytes.fromhex(request["build_id"]),
                request["module_kind"],
            )
        except SpoolError as error:
            self._count("no_room")
            self.last_error = str(error)

    def _count(self, reason: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1


def _spawn(jobs: list[_Job], sources: list[int]) -> int:
    """Start a child that inherits just the descriptors of these jobs."""
    requests = [job.request for job in jobs]
    for descriptor in [*sources, *(request["output"] for request in requests)]:
        os.set_inheritable(descriptor, True)
    try:
        command = child_command(_CHILD, [json.dumps(requests)])
        return os.posix_spawn(command[0], command, {}, setsigmask=())
    finally:
        for request in requests:
            os.set_inheritable(request["output"], False)


def _load_address(name: str) -> dict[str, int]:
    try:
        text = Path("/proc/modules").read_text()
    except OSError as error:
        raise SymbolError("gone: the kernel lists no modules") from error
    for module in parse_modules(text):
        if module.name == name:
            return {"base": module.start, "size": module.size}
    raise SymbolError("gone: the kernel module has been unloaded")


def _discard(output: AbstractContextManager[int]) -> None:
    """End the block that writes the file with an error, which removes it."""
    error = ChildError("the child did not finish")
    with suppress(ChildError, SpoolError):
        output.__exit__(type(error), error, None)
