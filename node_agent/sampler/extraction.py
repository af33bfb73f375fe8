"""Symbol extracts on demand: one child at a time, only for modules seen in this run."""

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
from node_agent.processes.errors import FileUnavailableError
from node_agent.processes.files import open_mapped
from node_agent.spool import Spool
from node_agent.symbols.children import child_command
from node_agent.symbols.errors import ChildError, SymbolError
from node_agent.symbols.extract import refusal
from node_agent.symbols.kallsyms import KALLSYMS, parse_modules
from node_agent.symbols.modules import ModuleRegistry
from wire.schema import ModuleKind

MAX_QUEUED = 256
TIMEOUT_S = 180.0
_CHILD = "node_agent.symbols.extract"


class _Child(NamedTuple):
    """The running child and the spool file that it writes to."""

    pid: int
    request: dict[str, Any]
    output: AbstractContextManager[int]
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
        if request not in self._queue:
            self._queue.append(request)
        return True

    @property
    def pending(self) -> int:
        """Requests not finished yet."""
        return len(self._queue) + (self._child is not None)

    def step(self) -> None:
        """Collect a child that has ended, start the next; never waits."""
        if self._child is not None and not self._collect(self._child):
            return
        if self._queue:
            self._begin(self._queue.popleft())

    def close(self) -> None:
        """End a running child; its extract will be asked for again."""
        child, self._child = self._child, None
        if child is not None:
            with suppress(OSError):  # root's child is nobody's; that one ends by its own alarm
                os.kill(child.pid, signal.SIGKILL)
                os.waitpid(child.pid, 0)
            _discard(child.output)

    def _begin(self, request: dict[str, Any]) -> None:
        try:
            source = self._open(request)
        except (SymbolError, FileUnavailableError) as error:
            self._refuse(request, str(error))
            return
        output = self._spool.writing_extract(
            bytes.fromhex(request["build_id"]), request["module_kind"]
        )
        try:
            descriptor = output.__enter__()
        except SpoolError as error:
            os.close(source)
            self._count("no_room")
            self.last_error = str(error)
            return
        try:
            pid = _spawn(request, source, descriptor)
        except OSError as error:
            _discard(output)
            self._refuse(request, f"no child could be started: {error.strerror}")
            return
        finally:
            os.close(source)
        self._child = _Child(pid, request, output, time.monotonic())

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
        """Whether the child has ended; its output is then stored or replaced by a refusal."""
        pid, status = os.waitpid(child.pid, os.WNOHANG)
        if pid == 0:
            if time.monotonic() - child.started_at > TIMEOUT_S:
                with suppress(OSError):  # see `close`
                    os.kill(child.pid, signal.SIGKILL)
            return False
        self._child = None
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            try:
                child.output.__exit__(None, None, None)
                self._count("made")
            except SpoolError as error:
                self._count("no_room")
                self.last_error = str(error)
            return True
        _discard(child.output)
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        self._refuse(child.request, f"the reader of its symbols ended with {how}")
        return True

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


def _spawn(request: dict[str, Any], source: int, output: int) -> int:
    command = child_command(_CHILD, [json.dumps(request)])
    return os.posix_spawn(
        command[0],
        command,
        {},
        file_actions=[(os.POSIX_SPAWN_DUP2, source, 0), (os.POSIX_SPAWN_DUP2, output, 1)],
        setsigmask=(),
    )


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
