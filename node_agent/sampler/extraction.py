"""Symbol extracts on demand, only for modules seen in this run; children make them."""

import os
from collections import deque
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from node_agent.capabilities import KERNEL_SYMBOLS, OTHER_PROCESSES, using
from node_agent.children.confine import WALL_S
from node_agent.children.runner import Children, Task
from node_agent.errors import SpoolError
from node_agent.processes.errors import FileUnavailableError
from node_agent.processes.files import open_mapped
from node_agent.spool import Spool
from node_agent.symbols.errors import ChildError, SymbolError
from node_agent.symbols.extract import refusal
from node_agent.symbols.kallsyms import KALLSYMS, parse_modules
from node_agent.symbols.modules import ModuleRegistry
from wire.schema import ModuleKind

MAX_QUEUED = 256
MAX_AT_ONCE = 16  # extracts a child
COST_S, KERNEL_COST_S = 0.06, 0.3  # CPU time of an extract
_CHILD = "node_agent.symbols.extract"


class _Job(NamedTuple):
    """A request under way: what the child reads, and the spool file that it writes."""

    request: dict[str, Any]
    input: int
    output: AbstractContextManager[int]
    target: int


class Extractor:
    """Makes extracts of the modules in `registry` into `spool`, by `children`. `counts` tells what
    became of the requests: `made`, `failed` (refused with a reason), `unknown`, `queue_full`,
    `no_room`."""

    name = "symbols"
    rank = 1  # what is whole is not yet read without names

    def __init__(
        self, spool: Spool, registry: ModuleRegistry, node: str, children: Children | None = None
    ) -> None:
        self.counts: dict[str, int] = {}
        self.last_error = ""
        self._spool = spool
        self._registry = registry
        self._node = node
        self._queue: deque[dict[str, Any]] = deque()
        self._jobs: list[_Job] = []
        self._children = children or Children()
        self._children.add(self)

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
        key = request["module_kind"], request["build_id"]
        return any(
            (other["module_kind"], other["build_id"]) == key
            for other in [*self._queue, *(job.request for job in self._jobs)]
        )

    @property
    def pending(self) -> int:
        """Requests not finished yet."""
        return len(self._queue) + len(self._jobs)

    def step(self) -> None:
        """Go on with what is under way; never waits."""
        self._children.step()

    def costs(self) -> list[float]:
        """See node_agent.children.runner.Work, also for `begin` and `finish`."""
        first = zip(self._queue, range(MAX_AT_ONCE), strict=False)
        return [_cost_s(request) for request, _ in first]

    def begin(self) -> Task | None:
        while self._queue and len(self._jobs) < MAX_AT_ONCE:
            request = self._queue.popleft()
            key = ("extract", request["module_kind"], request["build_id"])
            job = self._children.faults.contain("extract", key, partial(self._prepare, request))
            if job is not None:
                self._jobs.append(job)
        if not self._jobs:
            return None
        asked = [
            {
                **job.request,
                "input": job.input,
                "output": job.target,
                "cost_s": _cost_s(job.request),
            }
            for job in self._jobs
        ]
        descriptors = [descriptor for job in self._jobs for descriptor in (job.input, job.target)]
        return Task(_CHILD, asked, descriptors, WALL_S)

    def finish(self, done: int, fault: str) -> None:
        jobs, self._jobs = self._jobs, []
        again: list[dict[str, Any]] = []
        for number, job in enumerate(jobs):
            os.close(job.input)
            if number < done:
                self._store(job)
                continue
            _discard(job.output)
            if number == done and fault:
                self._refuse(job.request, fault)
            else:
                again.append(job.request)
        self._queue.extendleft(reversed(again))

    def close(self) -> None:
        """End a running child; what it made will be asked for again."""
        self._children.end(self)
        self._queue.clear()

    def _prepare(self, request: dict[str, Any]) -> _Job | None:
        """Open what a request reads from and writes to."""
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
        return _Job(request, source, output, target)

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


def _cost_s(request: dict[str, Any]) -> float:
    is_kernel = request["module_kind"] in (ModuleKind.KERNEL, ModuleKind.KERNEL_MODULE)
    return KERNEL_COST_S if is_kernel else COST_S


def _load_address(name: str) -> dict[str, int]:
    try:
        text = Path("/proc/modules").read_text(errors="replace")
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
